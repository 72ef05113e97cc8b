// SPDX-License-Identifier: MIT OR Apache-2.0

//! HdrHistogram's format V2, compressed, written from the buckets that have values. The crate `hdrhistogram`, which reads it, writes it from an array of
//! all buckets, some 300 KB for each histogram: in a guest that was a twentieth of all that it executed.
//!
//! Sources: `AbstractHistogram.java` (`encodeIntoCompressedByteBuffer()`, `fillBufferFromCountsArray()`) of HdrHistogram, `ZigZagEncoding.java`;
//! RFC 1950 (zlib), RFC 1951 (deflate).

use std::io::{self, Write as _};

use flate2::write::ZlibEncoder;
use flate2::Compression;

use super::{DIGITS, MAX};

/// What begins a histogram, and one that is compressed; both say that counts are of up to nine bytes.
const COOKIE: u32 = 0x1c84_9303 | 0x10;
const COMPRESSED: u32 = 0x1c84_9304 | 0x10;

/// Powers of two: below this one each value has a bucket of its own, above it values have half as many up to each further power of two. It is the
/// least that tells 2 · 10^DIGITS values apart.
const EXACT_BITS: u32 = (2 * 10_u64.pow(DIGITS as u32))
    .next_power_of_two()
    .trailing_zeros();

/// What is longer is deflated, in bytes. What is shorter has little to gain, and a compressor is 300 KB to set up.
const STORED: usize = 4096;

/// How far a value of a bucket is from the least one of the bucket below, as a power of two.
fn shift(value: u64) -> u32 {
    (u64::BITS - value.leading_zeros()).saturating_sub(EXACT_BITS)
}

/// The lowest value of the bucket that a value is in.
pub(super) fn lowest(value: u64) -> u64 {
    value >> shift(value) << shift(value)
}

/// Which bucket a value is in.
fn index(value: u64) -> u64 {
    let shift = shift(value);
    (u64::from(shift) << (EXACT_BITS - 1)) + (value >> shift)
}

/// Buckets, by their lowest values in ascending order, and how often there was a value of them.
///
/// # Errors
/// If what it is compressed with does not.
pub(super) fn encode(buckets: &[(u64, u64)]) -> io::Result<Vec<u8>> {
    let zipped = zlib(&plain(buckets))?;
    let mut bytes = COMPRESSED.to_be_bytes().to_vec();
    bytes.extend(length(&zipped).to_be_bytes());
    bytes.extend(zipped);
    Ok(bytes)
}

/// The same, not compressed.
fn plain(buckets: &[(u64, u64)]) -> Vec<u8> {
    let mut counts = Vec::new();
    let mut next = 0;
    for &(value, count) in buckets {
        let index = index(value);
        match i64::try_from(index - next).unwrap_or(i64::MAX) {
            0 => {}
            // One without values is written as it is.
            1 => zig_zag(&mut counts, 0),
            empty => zig_zag(&mut counts, -empty),
        }
        zig_zag(&mut counts, i64::try_from(count).unwrap_or(i64::MAX));
        next = index + 1;
    }
    if buckets.is_empty() {
        // Readers expect the first bucket in any case.
        zig_zag(&mut counts, 0);
    }
    let greatest = buckets.last().map_or(0, |&(value, _)| value);
    let mut bytes = COOKIE.to_be_bytes().to_vec();
    bytes.extend(length(&counts).to_be_bytes());
    // By how many buckets all are shifted.
    bytes.extend(0_u32.to_be_bytes());
    bytes.extend(u32::from(DIGITS).to_be_bytes());
    // The least that is told from 0, and the greatest that has a bucket.
    bytes.extend(1_u64.to_be_bytes());
    bytes.extend(greatest.clamp(2, MAX).to_be_bytes());
    // How much one stands for.
    bytes.extend(1_f64.to_be_bytes());
    bytes.extend(counts);
    bytes
}

fn length(bytes: &[u8]) -> u32 {
    // All buckets that there are take some nine bytes for each of 2^18.
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// A number, in bytes of seven bits from the lowest on; the ninth byte has eight.
fn zig_zag(bytes: &mut Vec<u8>, number: i64) {
    let mut rest = (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned();
    for _ in 0..8 {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
    bytes.push(rest.to_le_bytes()[0]);
}

/// Bytes in zlib's format: as they are if they are few.
fn zlib(bytes: &[u8]) -> io::Result<Vec<u8>> {
    match u16::try_from(bytes.len()) {
        Ok(size) if usize::from(size) <= STORED => {
            // Deflate with a window of 32 KiB, checked by 31; then the last block, as it is.
            let mut zipped = vec![0x78, 0x01, 0x01];
            zipped.extend(size.to_le_bytes());
            zipped.extend((!size).to_le_bytes());
            zipped.extend(bytes);
            zipped.extend(adler32(bytes).to_be_bytes());
            Ok(zipped)
        }
        _ => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(bytes)?;
            encoder.finish()
        }
    }
}

/// Adler-32 (RFC 1950).
fn adler32(bytes: &[u8]) -> u32 {
    const BASE: u32 = 65_521;
    let (mut low, mut high) = (1, 0);
    for &byte in bytes {
        low = (low + u32::from(byte)) % BASE;
        high = (high + low) % BASE;
    }
    high << 16 | low
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::{Serializer as _, V2Serializer};
    use hdrhistogram::Histogram;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = u64> {
        (0..=MAX, 0_u32..41).prop_map(|(value, bits)| value >> bits)
    }

    /// As the crate has it.
    fn reference(values: &[u64]) -> Histogram<u64> {
        let max = values.iter().copied().max().unwrap_or(0);
        let mut histogram = Histogram::new_with_max(max.clamp(2, MAX), DIGITS).unwrap();
        values
            .iter()
            .for_each(|&value| histogram.saturating_record(value));
        histogram
    }

    proptest! {
        #[test]
        fn buckets_are_the_crates(value in value()) {
            prop_assert_eq!(lowest(value), reference(&[]).lowest_equivalent(value));
        }

        #[test]
        fn bytes_are_the_crates(values in prop::collection::vec(value(), 0..300)) {
            let mut expected = Vec::new();
            let mut sorted: Vec<u64> = values.iter().copied().map(lowest).collect();
            sorted.sort_unstable();
            V2Serializer::new().serialize(&reference(&sorted), &mut expected).unwrap();
            let buckets: Vec<(u64, u64)> = sorted
                .chunk_by(|one, next| one == next)
                .map(|same| (same[0], same.len() as u64))
                .collect();
            prop_assert_eq!(plain(&buckets), expected);
        }

        #[test]
        fn zipped_is_what_zlib_reads(bytes in prop::collection::vec(any::<u8>(), 0..2 * STORED)) {
            let mut read = Vec::new();
            let zipped = zlib(&bytes).unwrap();
            io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(&*zipped), &mut read).unwrap();
            prop_assert_eq!(read, bytes);
        }

        #[test]
        fn counts_of_all_sizes_are_the_crates(count in any::<u64>(), bits in 0_u32..64) {
            let count = (count >> bits).clamp(1, u64::from(u32::MAX) << 30);
            let mut histogram = reference(&[]);
            histogram.record_n(1, count).unwrap();
            let mut expected = Vec::new();
            V2Serializer::new().serialize(&histogram, &mut expected).unwrap();
            prop_assert_eq!(plain(&[(1, count)]), expected);
        }
    }

    #[test]
    fn few_bytes_are_stored_and_many_deflated() {
        assert_eq!(zlib(&[0; STORED]).unwrap().len(), STORED + 11);
        assert!(zlib(&[0; STORED + 1]).unwrap().len() < 100);
    }
}
