// SPDX-License-Identifier: GPL-2.0

//! The checksum of RFC 1071 from its definition, over everything: what the datapath changes
//! incrementally has to agree with it.

/// The ones' complement sum of the 16-bit words in `parts`, each filled up with a zero if it is of
/// odd length.
pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for word in parts.iter().flat_map(|part| part.chunks(2)) {
        let low = word.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([word[0], low]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Zero has two forms, of which only UDP tells one from the other.
pub fn is_zero(sum: u16) -> bool {
    sum == 0 || sum == 0xffff
}

/// Whether two sums are the same number.
pub fn same(one: u16, other: u16) -> bool {
    one == other || is_zero(one) && is_zero(other)
}

/// Puts a checksum or a sum in its field.
pub fn put(bytes: &mut [u8], at: usize, sum: u16) {
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// What stands in a field.
pub fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
