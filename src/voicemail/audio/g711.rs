//! ITU-T G.711: one byte of companded telephone audio to one linear sample.

/// µ-law (section 3.2, table 2): 14 bits, scaled to 16.
pub fn from_ulaw(byte: u8) -> i16 {
    let byte = !byte;
    let (segment, step) = (i32::from(byte >> 4 & 7), i32::from(byte & 15));
    // 33 is the bias that makes every segment start at a power of two.
    let magnitude = (((step << 1) + 33) << segment) - 33;
    signed(magnitude << 2, byte & 0x80 != 0)
}

/// A-law (section 3.1, table 1): 13 bits, scaled to 16. Every second bit travels inverted.
pub fn from_alaw(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (segment, step) = (i32::from(byte >> 4 & 7), i32::from(byte & 15));
    let magnitude = if segment == 0 { (step << 1) + 1 } else { ((step << 1) + 33) << (segment - 1) };
    signed(magnitude << 3, byte & 0x80 == 0)
}

fn signed(magnitude: i32, negative: bool) -> i16 {
    // At most 32256 in either law.
    (if negative { -magnitude } else { magnitude }) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_the_corners_of_the_tables() {
        let ulaw = [(0xff, 0), (0x7f, 0), (0x80, 32124), (0x00, -32124), (0xf0, 120), (0xef, 132), (0x8f, 16764)];
        for (byte, linear) in ulaw {
            assert_eq!(from_ulaw(byte), linear, "µ-law {byte:#04x}");
        }
        let alaw = [(0xd5, 8), (0x55, -8), (0xaa, 32256), (0x2a, -32256), (0xd4, 24), (0xc5, 264), (0xf5, 1056 - 528)];
        for (byte, linear) in alaw {
            assert_eq!(from_alaw(byte), linear, "A-law {byte:#04x}");
        }
    }

    #[test]
    fn both_laws_are_symmetric_and_monotonic() {
        for byte in 0..128u8 {
            assert_eq!(from_ulaw(byte), -from_ulaw(byte | 0x80));
            assert_eq!(from_alaw(byte), -from_alaw(byte | 0x80));
        }
        let louder = |law: fn(u8) -> i16, code: fn(u8) -> u8| (1..128u8).all(|n| law(code(n)) > law(code(n - 1)));
        assert!(louder(from_ulaw, |n| 0xff - n));
        assert!(louder(from_alaw, |n| (0x80 | n) ^ 0x55));
    }
}
