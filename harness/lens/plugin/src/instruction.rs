// SPDX-License-Identifier: MIT OR Apache-2.0

//! What an instruction of x86-64 in 64-bit mode says about the one that comes next: as much of its
//! encoding as that takes (Intel SDM volume 2, chapter 2 and appendix A).

use mutex_abi::marks::Mark;

/// How an instruction goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// With the next one.
    Next,
    /// With the next one, after an interrupt: HLT.
    Halt,
    /// With the next one, or with itself again: a string instruction with REP.
    Repeat,
    /// At this address.
    Jump(u64),
    /// At this address or with the next one.
    Branch(u64),
    /// Wherever a register or memory says.
    JumpAnywhere,
    /// A call of this address.
    Call(u64),
    /// A call of what a register or memory says.
    CallAnywhere,
    /// Where the top of the stack says.
    Return,
    /// IRET.
    InterruptReturn,
    /// SYSCALL or SYSENTER.
    SystemCall,
    /// SYSRET or SYSEXIT, always to user space.
    SystemReturn,
    /// It always raises an exception: UD2, INT and their like.
    Exception,
}

impl Flow {
    /// Whether it reads a return address from the stack by reading, or writes one by writing.
    pub const fn uses_stack(self, is_write: bool) -> bool {
        match self {
            Self::Call(_) | Self::CallAnywhere => is_write,
            Self::Return => !is_write,
            _ => false,
        }
    }
}

/// An instruction at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its virtual address.
    pub address: u64,
    /// The address behind it.
    pub next: u64,
    /// How it goes on.
    pub flow: Flow,
    /// Whether its access to memory is atomic: its read already needs the line for itself.
    pub is_atomic: bool,
    /// Which mark it is, if it is one.
    pub mark: Option<Mark>,
}

impl Instruction {
    /// The longest there is, in bytes.
    pub const MAX_SIZE: usize = 15;

    /// The instruction whose bytes, all of them and no more, lie at `address`.
    pub fn decode(address: u64, bytes: &[u8]) -> Self {
        let next = address.wrapping_add(bytes.len() as u64);
        let (flow, is_atomic) = decode(next, bytes);
        Self {
            address,
            next,
            flow,
            is_atomic,
            mark: Mark::of_instruction(bytes),
        }
    }

    /// Whether it is one of user space: in the lower half of the addresses.
    pub const fn is_user(&self) -> bool {
        is_user(self.address)
    }
}

/// Whether an address is in the lower half, that of user space.
pub const fn is_user(address: u64) -> bool {
    address >> 63 == 0
}

/// How it goes on, and whether it is atomic.
fn decode(next: u64, bytes: &[u8]) -> (Flow, bool) {
    let is_prefix = |byte: u8| {
        matches!(
            byte,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3
        )
    };
    let prefixes = bytes.iter().take_while(|&&byte| is_prefix(byte)).count();
    let (prefixes, rest) = bytes.split_at(prefixes);
    let rest = match rest {
        // REX.
        [0x40..=0x4f, rest @ ..] => rest,
        rest => rest,
    };
    let is_locked = prefixes.contains(&0xf0);
    let is_repeated = prefixes.iter().any(|prefix| matches!(prefix, 0xf2 | 0xf3));
    // Relative jumps end with the distance, counted from the next instruction.
    let near = || next.wrapping_add_signed(i64::from(rest.last().map_or(0, |&byte| byte as i8)));
    let far = || {
        let distance = rest
            .last_chunk()
            .map_or(0, |bytes| i32::from_le_bytes(*bytes));
        next.wrapping_add_signed(i64::from(distance))
    };
    let is_memory = |modrm: u8| modrm < 0xc0;
    let flow = match *rest {
        [0x70..=0x7f | 0xe0..=0xe3, ..] => Flow::Branch(near()),
        [0x0f, 0x80..=0x8f, ..] => Flow::Branch(far()),
        [0xeb, ..] => Flow::Jump(near()),
        [0xe9, ..] => Flow::Jump(far()),
        [0xe8, ..] => Flow::Call(far()),
        [0xff, modrm, ..] => match modrm >> 3 & 7 {
            2 | 3 => Flow::CallAnywhere,
            4 | 5 => Flow::JumpAnywhere,
            _ => Flow::Next,
        },
        [0xc2 | 0xc3 | 0xca | 0xcb, ..] => Flow::Return,
        [0xf4] => Flow::Halt,
        [0xcf] => Flow::InterruptReturn,
        [0x0f, 0x05 | 0x34] => Flow::SystemCall,
        [0x0f, 0x07 | 0x35] => Flow::SystemReturn,
        // INT3, INT, INT1; UD0, UD1, UD2.
        [0xcc | 0xcd | 0xf1, ..] | [0x0f, 0x0b | 0xb9 | 0xff, ..] => Flow::Exception,
        [0x6c..=0x6f | 0xa4..=0xa7 | 0xaa..=0xaf] if is_repeated => Flow::Repeat,
        _ => Flow::Next,
    };
    // XCHG with memory locks by itself.
    let is_exchange = matches!(*rest, [0x86 | 0x87, modrm, ..] if is_memory(modrm));
    (flow, is_locked || is_exchange)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: u64 = 0xffff_ffff_8100_1000;

    fn flow(bytes: &[u8]) -> Flow {
        Instruction::decode(ADDRESS, bytes).flow
    }

    #[test]
    fn instructions_that_go_elsewhere_are_told_apart() {
        for (bytes, expected) in [
            (&[0x90][..], Flow::Next),
            (&[0x48, 0x89, 0xd8], Flow::Next),
            // endbr64
            (&[0xf3, 0x0f, 0x1e, 0xfa], Flow::Next),
            (&[0xe8, 0xfb, 0xff, 0xff, 0xff], Flow::Call(ADDRESS)),
            (&[0xe9, 0x00, 0x01, 0x00, 0x00], Flow::Jump(ADDRESS + 0x105)),
            (&[0xeb, 0xfe], Flow::Jump(ADDRESS)),
            (&[0x74, 0x10], Flow::Branch(ADDRESS + 0x12)),
            // loop to itself
            (&[0xe2, 0xfe], Flow::Branch(ADDRESS)),
            (&[0x0f, 0x84, 0xfa, 0xff, 0xff, 0xff], Flow::Branch(ADDRESS)),
            // call *%rax, call *8(%rax), jmp *%rax, notrack jmp *%r11
            (&[0xff, 0xd0], Flow::CallAnywhere),
            (&[0xff, 0x50, 0x08], Flow::CallAnywhere),
            (&[0xff, 0xe0], Flow::JumpAnywhere),
            (&[0x3e, 0x41, 0xff, 0xe3], Flow::JumpAnywhere),
            // incl (%rax), push 8(%rax)
            (&[0xff, 0x00], Flow::Next),
            (&[0xff, 0x70, 0x08], Flow::Next),
            (&[0xc3], Flow::Return),
            (&[0xf3, 0xc3], Flow::Return),
            (&[0x48, 0xcf], Flow::InterruptReturn),
            (&[0x0f, 0x05], Flow::SystemCall),
            (&[0x48, 0x0f, 0x07], Flow::SystemReturn),
            (&[0xf4], Flow::Halt),
            (&[0x0f, 0x0b], Flow::Exception),
            (&[0xcc], Flow::Exception),
            // rep movsq, movsq
            (&[0xf3, 0x48, 0xa5], Flow::Repeat),
            (&[0x48, 0xa5], Flow::Next),
        ] {
            assert_eq!(flow(bytes), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn atomic_accesses_are_those_with_lock_and_exchanges_with_memory() {
        let is_atomic = |bytes: &[u8]| Instruction::decode(ADDRESS, bytes).is_atomic;
        // lock incl (%rax), xchg %eax,(%rbx)
        assert!(is_atomic(&[0xf0, 0xff, 0x00]));
        assert!(is_atomic(&[0x87, 0x03]));
        // incl (%rax), xchg %eax,%ebx, mov
        assert!(!is_atomic(&[0xff, 0x00]));
        assert!(!is_atomic(&[0x87, 0xc3]));
        assert!(!is_atomic(&[0x48, 0x89, 0x03]));
    }

    #[test]
    fn a_mark_is_an_instruction_that_goes_on() {
        let mut bytes = vec![0x0f, 0x1f, 0x84, 0x00];
        bytes.extend(Mark::Open.displacement().to_le_bytes());
        let instruction = Instruction::decode(0x1000, &bytes);
        assert_eq!(instruction.mark, Some(Mark::Open));
        assert_eq!(instruction.flow, Flow::Next);
        assert_eq!(instruction.next, 0x1008);
        assert!(instruction.is_user());
    }
}
