//! Packing: what a plain text looks like inside its seal, compressed where that helps and padded to few sizes.
//!
//! ```text
//! packed = flags:u8 length:varint [plain-length:varint] bytes zero*
//! ```
//!
//! Flag 1 says that the bytes are an LZ4 block, and then `plain-length` says what comes out of it. The zeros fill up to
//! a [padded length](padded_len). [The module of the seals](super::seal) says why compressing is safe here.

use super::seal::DoesNotOpen;

const COMPRESSED: u8 = 1;
/// Shorter texts gain nothing.
const COMPRESS_FROM_BYTES: usize = 128;
const MIN_PADDED_BYTES: u64 = 32;
/// An LZ4 block cannot hold more than this for each of its bytes.
const MAX_LZ4_RATIO: usize = 255;
/// No record's value comes near this; what claims more is damaged.
const MAX_PLAIN_BYTES: usize = 256 << 20;

/// The length to which `length` bytes are padded: Padmé (PETS 2019, algorithm 1), 32 at least.
pub fn padded_len(length: u64) -> u64 {
    if length <= MIN_PADDED_BYTES {
        return MIN_PADDED_BYTES;
    }
    let exponent = length.ilog2();
    let kept_bits = exponent.ilog2() + 1;
    length.checked_next_multiple_of(1 << (exponent - kept_bits)).unwrap_or(u64::MAX)
}

/// Packs a plain text.
pub fn pack(plain: &[u8]) -> Vec<u8> {
    let stored = frame(0, None, plain);
    if plain.len() < COMPRESS_FROM_BYTES {
        return stored;
    }
    let compressed = frame(COMPRESSED, Some(plain.len()), &lz4_flex::block::compress(plain));
    if compressed.len() < stored.len() { compressed } else { stored }
}

fn frame(flags: u8, plain_length: Option<usize>, bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(padded_len(bytes.len() as u64 + 11) as usize);
    packed.push(flags);
    push_varint(&mut packed, bytes.len());
    if let Some(length) = plain_length {
        push_varint(&mut packed, length);
    }
    packed.extend_from_slice(bytes);
    packed.resize(padded_len(packed.len() as u64) as usize, 0);
    packed
}

/// The plain text of what [`pack`] made. Anything else gives an error and allocates no more than LZ4 could fill.
pub fn unpack(packed: &[u8]) -> Result<Vec<u8>, DoesNotOpen> {
    let (flags, mut rest) = packed.split_first().ok_or(DoesNotOpen)?;
    let length = take_varint(&mut rest)?;
    let plain_length = if flags & COMPRESSED != 0 { Some(take_varint(&mut rest)?) } else { None };
    let bytes = rest.get(..length).ok_or(DoesNotOpen)?;
    let Some(plain_length) = plain_length.filter(|_| *flags == COMPRESSED) else {
        return if *flags == 0 { Ok(bytes.to_vec()) } else { Err(DoesNotOpen) };
    };
    if plain_length > MAX_PLAIN_BYTES || plain_length > length.saturating_mul(MAX_LZ4_RATIO) {
        return Err(DoesNotOpen);
    }
    let mut plain = vec![0; plain_length];
    match lz4_flex::block::decompress_into(bytes, &mut plain) {
        Ok(filled) if filled == plain_length => Ok(plain),
        _ => Err(DoesNotOpen),
    }
}

fn push_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<usize, DoesNotOpen> {
    let mut value = 0;
    // Five groups hold more than the largest plain text.
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(DoesNotOpen)?;
        *bytes = rest;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DoesNotOpen)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_those_of_the_paper() {
        for (length, padded) in [
            (0, 32),
            (32, 32),
            (33, 36),
            (36, 36),
            (100, 104),
            (128, 128),
            (129, 144),
            (1_000, 1_024),
            (4_097, 4_352),
            (100_000, 100_352),
            (1 << 40, 1 << 40),
        ] {
            assert_eq!(padded_len(length), padded, "{length}");
        }
    }

    #[test]
    fn text_shrinks_and_noise_does_not_grow_much() {
        let text = "When may I come by for the flu shot? ".repeat(100);
        assert!(pack(text.as_bytes()).len() < 300);
        let noise: Vec<u8> = crate::store::seal::random::<4096>().to_vec();
        assert!(pack(&noise).len() <= padded_len(4096 + 3) as usize);
    }

    /// What claims to be larger than its bytes can be is refused before memory is taken for it.
    #[test]
    fn a_bomb_is_refused() {
        let mut bomb = vec![COMPRESSED];
        push_varint(&mut bomb, 10);
        push_varint(&mut bomb, MAX_PLAIN_BYTES);
        bomb.extend([0; 10]);
        assert_eq!(unpack(&bomb), Err(DoesNotOpen));
    }

    proptest! {
        #[test]
        fn plain_texts_come_back(plain in proptest::collection::vec(0_u8..5, 0..3_000)) {
            let packed = pack(&plain);
            prop_assert_eq!(packed.len() as u64, padded_len(packed.len() as u64));
            prop_assert_eq!(unpack(&packed).unwrap(), plain);
        }

        #[test]
        fn padding_hides_and_costs_an_eighth_at_most(length in 33_u64..1 << 50) {
            let padded = padded_len(length);
            prop_assert!(padded >= length && padded - length <= length / 8);
            prop_assert_eq!(padded_len(padded), padded);
        }

        #[test]
        fn no_input_panics(packed in proptest::collection::vec(any::<u8>(), 0..300), flags in 0_u8..3) {
            let _ = unpack(&packed);
            let _ = unpack(&[&[flags, 100], packed.as_slice()].concat());
        }
    }
}
