//! GSM full rate speech decoder (3GPP TS 46.010, once GSM 06.10), in the standard's 16-bit integer arithmetic.
//!
//! 260 bits become 160 samples of 13 bits. Only the decoder is here: nothing in this program makes GSM.
//! Names and section numbers are the standard's.

/// 20 ms at 8 kHz.
pub const FRAME_SAMPLES: usize = 160;

/// Table 1.1: the bits of the eight log area ratios.
const LAR_BITS: [u32; 8] = [6, 6, 5, 5, 4, 4, 3, 3];
/// Table 5.1 and its inverse 1/A, and the smallest code.
const LAR_B: [i16; 8] = [0, 0, 2048, -2560, 94, -1792, -341, -1144];
const LAR_INVERSE_A: [i16; 8] = [13107, 13107, 13107, 13107, 19223, 17476, 31454, 29708];
const LAR_MINIMUM: [i16; 8] = [-32, -32, -16, -16, -8, -8, -4, -4];
/// Table 5.3b: the long-term gains.
const QLB: [i16; 4] = [3277, 11469, 21299, 32767];
/// Table 5.6: normalised direct mantissa.
const FAC: [i16; 8] = [18431, 20479, 22527, 24575, 26623, 28671, 30719, 32767];

/// The parameters of one frame (section 1.7).
pub struct Frame {
    larc: [i16; 8],
    subframes: [Subframe; 4],
}

#[derive(Default)]
struct Subframe {
    /// Lag, gain, grid position, block maximum and the 13 pulses.
    nc: i16,
    bc: usize,
    mc: usize,
    xmaxc: i16,
    xmc: [i16; 13],
}

impl Frame {
    /// 33 bytes with the most significant bit first, after a signature of 4 bits: RTP's and `.gsm`'s order.
    pub fn from_msb_first(bytes: &[u8; 33]) -> Self {
        let mut at = 4;
        Self::read(|bits| {
            let mut value = 0;
            for _ in 0..bits {
                value = value << 1 | i16::from(bytes[at / 8] >> (7 - at % 8) & 1);
                at += 1;
            }
            value
        })
    }

    /// Two frames in 65 bytes with the least significant bit first: the order of WAV format 0x31.
    pub fn pair_from_lsb_first(bytes: &[u8; 65]) -> [Self; 2] {
        let mut at = 0;
        let mut take = |bits: u32| {
            let mut value = 0;
            for bit in 0..bits {
                value |= i16::from(bytes[at / 8] >> (at % 8) & 1) << bit;
                at += 1;
            }
            value
        };
        [Self::read(&mut take), Self::read(&mut take)]
    }

    /// Both orders carry the same 260 bits in the same sequence of parameters.
    fn read(mut take: impl FnMut(u32) -> i16) -> Self {
        Self {
            larc: LAR_BITS.map(&mut take),
            subframes: std::array::from_fn(|_| Subframe {
                nc: take(7),
                bc: take(2) as usize,
                mc: take(2) as usize,
                xmaxc: take(6),
                xmc: std::array::from_fn(|_| take(3)),
            }),
        }
    }
}

/// What one frame leaves behind for the next.
pub struct Decoder {
    /// The last 120 samples of the reconstructed residual, then 40 of the running subframe.
    drp: [i16; 160],
    nrp: i16,
    larpp: [i16; 8],
    v: [i16; 9],
    msr: i16,
}

impl Default for Decoder {
    fn default() -> Self {
        // Section 4.4: everything starts at zero but the lag.
        Self { drp: [0; 160], nrp: 40, larpp: [0; 8], v: [0; 9], msr: 0 }
    }
}

impl Decoder {
    pub fn decode(&mut self, frame: &Frame) -> [i16; FRAME_SAMPLES] {
        let mut residual = [0; FRAME_SAMPLES];
        for (subframe, out) in frame.subframes.iter().zip(residual.chunks_exact_mut(40)) {
            self.long_term_synthesis(subframe, &rpe_pulses(subframe));
            out.copy_from_slice(&self.drp[120..]);
            self.drp.copy_within(40.., 0);
        }
        let mut speech = self.short_term_synthesis(&frame.larc, residual);
        for sample in &mut speech {
            // Section 5.3.5: de-emphasis, upscaling, truncation to 13 bits.
            self.msr = add(*sample, mult_r(self.msr, 28180));
            *sample = add(self.msr, self.msr) & !7;
        }
        speech
    }

    /// Section 5.3.2.
    fn long_term_synthesis(&mut self, subframe: &Subframe, erp: &[i16; 40]) {
        if (40..=120).contains(&subframe.nc) {
            self.nrp = subframe.nc;
        }
        let (gain, lag) = (QLB[subframe.bc], self.nrp as usize);
        for (k, pulse) in erp.iter().enumerate() {
            self.drp[120 + k] = add(*pulse, mult_r(gain, self.drp[120 + k - lag]));
        }
    }

    /// Sections 5.2.8, 5.2.9 and 5.3.4.
    fn short_term_synthesis(&mut self, larc: &[i16; 8], mut samples: [i16; FRAME_SAMPLES]) -> [i16; FRAME_SAMPLES] {
        let before = self.larpp;
        let now: [i16; 8] = std::array::from_fn(|i| {
            let coded = (larc[i] + LAR_MINIMUM[i]) << 10;
            let scaled = mult_r(LAR_INVERSE_A[i], sub(coded, LAR_B[i] << 1));
            add(scaled, scaled)
        });
        self.larpp = now;
        // Table 3.2: the first quarter of a frame glides from the old filter to the new one.
        let glide =
            |weigh: fn(i16, i16) -> i16| -> [i16; 8] { std::array::from_fn(|i| reflection(weigh(before[i], now[i]))) };
        let sections = [
            (0..13, glide(|old, new| add(add(old >> 2, new >> 2), old >> 1))),
            (13..27, glide(|old, new| add(old >> 1, new >> 1))),
            (27..40, glide(|old, new| add(add(old >> 2, new >> 2), new >> 1))),
            (40..FRAME_SAMPLES, glide(|_, new| new)),
        ];
        for (range, rrp) in sections {
            for sample in &mut samples[range] {
                let mut sri = *sample;
                for i in (0..8).rev() {
                    sri = sub(sri, mult_r(rrp[i], self.v[i]));
                    self.v[i + 1] = add(self.v[i], mult_r(rrp[i], sri));
                }
                self.v[0] = sri;
                *sample = sri;
            }
        }
        samples
    }
}

/// Sections 5.2.15 to 5.2.17: the pulses of a subframe on their grid.
fn rpe_pulses(subframe: &Subframe) -> [i16; 40] {
    let mut exponent = if subframe.xmaxc > 15 { (subframe.xmaxc >> 3) - 1 } else { 0 };
    let mut mantissa = subframe.xmaxc - (exponent << 3);
    if mantissa == 0 {
        (exponent, mantissa) = (-4, 7);
    } else {
        while mantissa <= 7 {
            mantissa = mantissa << 1 | 1;
            exponent -= 1;
        }
        mantissa -= 8;
    }
    let shift = 6 - exponent;
    let rounding = if shift > 0 { 1 << (shift - 1) } else { 0 };
    let mut erp = [0; 40];
    for (i, pulse) in subframe.xmc.iter().enumerate() {
        let scaled = mult_r(FAC[mantissa as usize], ((pulse << 1) - 7) << 12);
        erp[subframe.mc + 3 * i] = add(scaled, rounding) >> shift;
    }
    erp
}

/// Section 5.2.9.2: a log area ratio to a reflection coefficient.
fn reflection(lar: i16) -> i16 {
    let size = lar.saturating_abs();
    let bent = if size < 11059 {
        size << 1
    } else if size < 20070 {
        size + 11059
    } else {
        add(size >> 2, 26112)
    };
    if lar < 0 { -bent } else { bent }
}

// Section 5.1: the standard's basic operations.

fn add(a: i16, b: i16) -> i16 {
    a.saturating_add(b)
}

fn sub(a: i16, b: i16) -> i16 {
    a.saturating_sub(b)
}

fn mult_r(a: i16, b: i16) -> i16 {
    if a == i16::MIN && b == i16::MIN { i16::MAX } else { ((i32::from(a) * i32::from(b) + 16384) >> 15) as i16 }
}
