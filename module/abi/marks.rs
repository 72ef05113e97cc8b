// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Instructions that do nothing, but are recognized by the lens, a plugin of QEMU's that sees every instruction
//! of a guest (`harness/lens/`).
//!
//! A mark is the eight-byte NOP `nopl imm32(%rax,%rax,1)` (Intel SDM volume 2, "NOP", 0F 1F /0 with
//! SIB and disp32) whose displacement is [`Mark::displacement`]. It costs one instruction, with the
//! plugin and without, reads no memory, and works in the kernel and in user space.

/// What a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mark {
    /// A window will open soon. The plugin gets ready, which takes some instructions; from then
    /// on it fills caches and follows calls, but nothing counts yet.
    Prepare = 1,
    /// A window opens: from the next instruction on everything counts, on all CPUs.
    Open = 2,
    /// The window closes: this instruction is the first that does not count any more.
    Close = 3,
    /// On this CPU a packet begins its way through the hooks.
    PacketIn = 4,
    /// On this CPU a span of a packet begins: one netfilter hook with all functions in it.
    SpanBegin = 5,
    /// That span ends.
    SpanEnd = 6,
    /// The packet's way is over.
    PacketOut = 7,
    /// Until [`Self::Resume`] nothing counts, this instruction included, and caches stay as they are.
    /// Calls are followed all the same.
    Pause = 8,
    /// From the next instruction on everything counts again.
    Resume = 9,
}

impl Mark {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Prepare,
        Self::Open,
        Self::Close,
        Self::PacketIn,
        Self::SpanBegin,
        Self::SpanEnd,
        Self::PacketOut,
        Self::Pause,
        Self::Resume,
    ];

    /// What all displacements have in common: "MXL" in their upper three bytes.
    const TAG: u32 = u32::from_be_bytes(*b"MXL\0");
    /// The bytes before the displacement.
    const OPCODE: [u8; 4] = [0x0f, 0x1f, 0x84, 0x00];
    /// Size of the instruction in bytes.
    pub const SIZE: usize = 8;

    /// The displacement in the instruction.
    pub const fn displacement(self) -> u32 {
        Self::TAG | self as u32
    }

    /// The mark whose instruction these bytes are; `None` if they are another instruction.
    pub fn of_instruction(bytes: &[u8]) -> Option<Self> {
        let displacement = bytes.strip_prefix(&Self::OPCODE)?;
        let displacement = u32::from_le_bytes(displacement.try_into().ok()?);
        Self::ALL
            .into_iter()
            .find(|mark| mark.displacement() == displacement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_recognized_and_nothing_else_is() {
        for mark in Mark::ALL {
            let mut bytes = vec![0x0f, 0x1f, 0x84, 0x00];
            bytes.extend(mark.displacement().to_le_bytes());
            assert_eq!(bytes.len(), Mark::SIZE);
            assert_eq!(Mark::of_instruction(&bytes), Some(mark));
            bytes.push(0x90);
            assert_eq!(Mark::of_instruction(&bytes), None);
        }
        // The ordinary eight-byte NOP of every compiler.
        let nop = [0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0];
        assert_eq!(Mark::of_instruction(&nop), None);
    }
}
