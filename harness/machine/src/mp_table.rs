// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table by which a kernel without ACPI finds its CPUs and their interrupts: Intel,
//! "MultiProcessor Specification", version 1.4, 1997, chapter 4.
//!
//! QEMU's firmware, SeaBIOS, writes one, but leaves it out if it is longer than 600 bytes (its
//! `copy_mptable()`), which it is from 17 to 21 CPUs on, as there are devices. The kernel then goes
//! on with one CPU. So guests of many CPUs get this one. Its first kilobytes lie where the firmware
//! has nothing; its end is the last 16 bytes below 640 KiB, where the kernel looks before it looks
//! at the firmware's (`mpparse_find_mptable()`, arch/x86/kernel/mpparse.c).

/// More CPUs than so many need this table. The firmware would do for some more, as long as it finds
/// no further devices.
pub const FIRMWARE_MAX: u32 = 8;
/// More CPUs than so many have no place in it.
pub const CPUS_MAX: u32 = 128;
/// Where it must lie in the guest's memory.
pub const ADDRESS: u32 = END - SIZE as u32;

/// Where base memory ends.
const END: u32 = 640 << 10;
/// One page, the last of base memory.
const SIZE: usize = 4 << 10;
/// Size of the pointer to the table, at the very end.
const POINTER_SIZE: usize = 16;
/// Where the firmware's data begin, which are in the same page.
const EBDA: usize = SIZE - 1024;

/// Version 1.4 of the specification.
const REVISION: u8 = 4;
/// Of the APICs that QEMU has: integrated ones.
const LOCAL_APIC: (u32, u8) = (0xfee0_0000, 0x14);
/// See [`LOCAL_APIC`].
const IO_APIC: (u32, u8) = (0xfec0_0000, 0x11);
/// The bus and the I/O APIC are the only ones of their kinds.
const ISA_BUS: u8 = 0;
/// See [`ISA_BUS`].
const IO_APIC_ID: u8 = 0;

/// Types of entries: section 4.3.
#[derive(Clone, Copy)]
enum Entry {
    Processor = 0,
    Bus = 1,
    IoApic = 2,
    IoInterrupt = 3,
    LocalInterrupt = 4,
}

/// Types of interrupts: table 4-10.
#[derive(Clone, Copy)]
enum Interrupt {
    Vectored = 0,
    NonMaskable = 1,
    External = 3,
}

/// What must be at [`ADDRESS`] of a guest with `cpus` CPUs, which QEMU numbers from 0.
///
/// PCI's interrupts are not in it: the guests' devices signal theirs by messages.
///
/// # Panics
/// If there are more than [`CPUS_MAX`].
pub fn bytes(cpus: u32) -> Vec<u8> {
    assert!(cpus <= CPUS_MAX, "{cpus} CPUs");
    let mut entries = Vec::new();
    let mut count: u16 = 0;
    let mut add = |kind: Entry, rest: &[u8]| {
        entries.push(kind as u8);
        entries.extend(rest);
        count += 1;
    };
    for cpu in 0..cpus {
        // Enabled, and the first is the one that boots.
        let flags = if cpu == 0 { 0b11 } else { 0b01 };
        let mut rest = [0; 19];
        rest[..3].copy_from_slice(&[cpu as u8, LOCAL_APIC.1, flags]);
        // Signature and features stay 0: the kernel asks each CPU itself.
        add(Entry::Processor, &rest);
    }
    add(Entry::Bus, &[&[ISA_BUS], b"ISA   ".as_slice()].concat());
    let enabled = 1;
    let io_apic = [
        &[IO_APIC_ID, IO_APIC.1, enabled],
        IO_APIC.0.to_le_bytes().as_slice(),
    ]
    .concat();
    add(Entry::IoApic, &io_apic);
    // Polarity and trigger mode as the bus has them.
    let interrupt =
        |kind: Interrupt, line: u8, apic: u8, pin: u8| [kind as u8, 0, 0, ISA_BUS, line, apic, pin];
    for line in 0..16 {
        // The timer's line 0 is wired to pin 2; line 2 joins the two PICs and is no one's.
        let pin = match line {
            0 => 2,
            2 => continue,
            _ => line,
        };
        add(
            Entry::IoInterrupt,
            &interrupt(Interrupt::Vectored, line, IO_APIC_ID, pin),
        );
    }
    let every_cpu = 0xff;
    add(
        Entry::LocalInterrupt,
        &interrupt(Interrupt::External, 0, 0, 0),
    );
    add(
        Entry::LocalInterrupt,
        &interrupt(Interrupt::NonMaskable, 0, every_cpu, 1),
    );

    let mut table = b"PCMP".to_vec();
    let length = 44 + entries.len();
    table.extend((length as u16).to_le_bytes());
    table.extend([REVISION, 0]);
    table.extend(b"MUTEXLABGUEST       ");
    // No table of the maker's.
    table.extend([0; 6]);
    table.extend(count.to_le_bytes());
    table.extend(LOCAL_APIC.0.to_le_bytes());
    // No extended entries.
    table.extend([0; 4]);
    table.extend(entries);
    table[7] = checksum(&table);

    let mut pointer = b"_MP_".to_vec();
    pointer.extend(ADDRESS.to_le_bytes());
    // Its length in units of 16 bytes; the features say that there is a table, and virtual wire mode.
    pointer.extend([1, REVISION, 0, 0, 0, 0, 0, 0]);
    pointer[10] = checksum(&pointer);

    assert!(table.len() <= EBDA);
    table.resize(SIZE - POINTER_SIZE, 0);
    table.extend(pointer);
    table
}

/// The byte that makes the sum of all 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_sub(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u16_at(bytes: &[u8], at: usize) -> usize {
        u16::from_le_bytes([bytes[at], bytes[at + 1]]).into()
    }

    #[test]
    fn a_table_is_found_and_adds_up() {
        for cpus in [1, 9, 64, CPUS_MAX] {
            let bytes = bytes(cpus);
            assert_eq!(bytes.len(), SIZE);
            let pointer = &bytes[SIZE - POINTER_SIZE..];
            assert_eq!(&pointer[..4], b"_MP_");
            assert_eq!(&pointer[4..8], &ADDRESS.to_le_bytes());
            assert_eq!(checksum(pointer), 0);
            let table = &bytes[..u16_at(&bytes, 4)];
            assert_eq!(&table[..4], b"PCMP");
            assert_eq!(checksum(table), 0);

            let mut kinds = [0; 5];
            let mut rest = &table[44..];
            while let Some(&kind) = rest.first() {
                kinds[usize::from(kind)] += 1;
                rest = &rest[if kind == 0 { 20 } else { 8 }..];
            }
            assert_eq!(kinds, [cpus as usize, 1, 1, 15, 2]);
            assert_eq!(kinds.iter().sum::<usize>(), u16_at(table, 34));
        }
    }

    #[test]
    fn processors_are_numbered_and_one_of_them_boots() {
        let bytes = bytes(64);
        for (cpu, entry) in bytes[44..].chunks(20).take(64).enumerate() {
            assert_eq!(usize::from(entry[1]), cpu);
            assert_eq!(entry[3], if cpu == 0 { 3 } else { 1 });
        }
    }
}
