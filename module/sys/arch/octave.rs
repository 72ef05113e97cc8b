// SPDX-License-Identifier: GPL-2.0

//! The instructions that find a value's place among [`Octaves`](super::abi::histogram::Octaves).
//!
//! In the kernel they are part of a larger piece of assembly (sys/arch/x86/latency.rs); the host compiles
//! this file with the datapath, and tests them.

/// Turns a value in EAX into its place, in RCX; RAX and the flags are lost. `{precision}` is the number of bits
/// of a place that are below the number of leading zeros.
///
/// For zero, LZCNT gives 32, unlike BSR; and zero shifted by 32, which the CPU takes for 0, stays zero. So
/// the result is at most `32 << precision`.
macro_rules! find_octave {
    () => {
        concat!(
            "lzcnt ecx, eax\n",
            "shl eax, cl\n",
            "shld ecx, eax, {precision}\n",
        )
    };
}

#[cfg(MODULE)]
pub(crate) use find_octave;

/// The place of `value`, as [`Octaves::index`](super::abi::histogram::Octaves::index) has it.
///
/// # Safety
///
/// The CPU has LZCNT.
#[cfg(not(MODULE))]
#[inline(always)]
pub unsafe fn index<const P: u32>(value: u32) -> usize {
    let place: u64;
    // SAFETY: registers only, and the caller promises what not every CPU has.
    unsafe {
        core::arch::asm!(
            find_octave!(),
            precision = const P,
            inout("eax") value => _,
            out("rcx") place,
            options(pure, nomem, nostack),
        );
    }
    place as usize
}

#[cfg(test)]
mod tests {
    use super::super::abi::histogram::Octaves;
    use super::*;
    use proptest::prelude::*;

    fn same<const P: u32>(value: u32) {
        // A CPU without LZCNT has no profiling either.
        if std::arch::is_x86_feature_detected!("lzcnt") {
            // SAFETY: it has.
            let found = unsafe { index::<P>(value) };
            assert_eq!(found, Octaves::<P>::index(value), "{value}");
        }
    }

    #[test]
    fn the_ends_are_found() {
        for value in (0..5000).chain(u32::MAX - 5000..=u32::MAX) {
            same::<5>(value);
        }
    }

    proptest! {
        #[test]
        fn every_place_is_found(value in any::<u32>(), shift in 0_u32..32) {
            same::<5>(value >> shift);
            same::<6>(value >> shift);
        }
    }
}
