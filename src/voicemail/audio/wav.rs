//! RIFF WAV as PBXs write it, read by what is there and not by what its lengths claim.

use super::{CUT_OFF, DAMAGED, MAX_SECONDS, Sound, TELEPHONE_HZ, g711, gsm610};
use crate::model::parsed::Unreadable;

/// Whether the bytes announce a WAV file: `RIFF` or `RF64`, then `WAVE`.
pub fn is_riff(bytes: &[u8]) -> bool {
    bytes.len() >= 12 && matches!(&bytes[..4], b"RIFF" | b"RF64") && &bytes[8..12] == b"WAVE"
}

/// A WAV file of PCM, signed 16 bits, mono.
pub fn encode_pcm16(rate_hz: u32, samples: &[i16]) -> Vec<u8> {
    let body = samples.len() as u32 * 2;
    let mut wav = Vec::with_capacity(44 + samples.len() * 2);
    wav.extend_from_slice(b"RIFF");
    wav.extend_from_slice(&(36 + body).to_le_bytes());
    wav.extend_from_slice(b"WAVEfmt ");
    wav.extend_from_slice(&16u32.to_le_bytes());
    wav.extend_from_slice(&1u16.to_le_bytes()); // PCM
    wav.extend_from_slice(&1u16.to_le_bytes()); // mono
    wav.extend_from_slice(&rate_hz.to_le_bytes());
    wav.extend_from_slice(&(rate_hz * 2).to_le_bytes());
    wav.extend_from_slice(&2u16.to_le_bytes());
    wav.extend_from_slice(&16u16.to_le_bytes());
    wav.extend_from_slice(b"data");
    wav.extend_from_slice(&body.to_le_bytes());
    wav.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    wav
}

/// The `fmt ` chunk (Multimedia Programming Interface and Data Specifications 1.0, "WAVE").
struct Format {
    tag: u16,
    channels: usize,
    rate_hz: u32,
    bits: u16,
}

pub fn decode(bytes: &[u8]) -> Result<Sound, Unreadable> {
    let (format, data, mut remarks) = chunks(bytes)?;
    let longest = MAX_SECONDS * format.rate_hz as usize + 1;
    let samples = match (format.tag, format.bits) {
        (0x31, _) => gsm_pairs(data, longest, &mut remarks),
        (1, 8) => frames(data, &format, 1, longest, &mut remarks, |s| (i16::from(s[0]) - 128) << 8),
        (1, 16) => frames(data, &format, 2, longest, &mut remarks, |s| i16::from_le_bytes([s[0], s[1]])),
        (1, 24) => frames(data, &format, 3, longest, &mut remarks, |s| i16::from_le_bytes([s[1], s[2]])),
        (1, 32) => frames(data, &format, 4, longest, &mut remarks, |s| i16::from_le_bytes([s[2], s[3]])),
        (3, 32) => frames(data, &format, 4, longest, &mut remarks, |s| {
            (f32::from_le_bytes([s[0], s[1], s[2], s[3]]) * 32767.0) as i16
        }),
        (6, _) => frames(data, &format, 1, longest, &mut remarks, |s| g711::from_alaw(s[0])),
        (7, _) => frames(data, &format, 1, longest, &mut remarks, |s| g711::from_ulaw(s[0])),
        (tag, _) => {
            return Err(Unreadable::new(format!("The recording's WAV encoding ({tag:#06x}) cannot be played here.")));
        }
    };
    Ok(Sound { samples, rate_hz: format.rate_hz, remarks })
}

/// Finds the format and the samples. A length that runs past the end is cut to it; a length of the data that leaves
/// bytes over which are no chunk is taken for a header that was never finished, and everything is audio.
fn chunks(bytes: &[u8]) -> Result<(Format, &[u8], Vec<&'static str>), Unreadable> {
    let mut remarks = Vec::new();
    let mut format = None;
    let mut at = 12;
    while let Some(header) = bytes.get(at..at + 8) {
        let claimed = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let body = &bytes[at + 8..];
        let length = claimed.min(body.len());
        match &header[..4] {
            b"fmt " => format = Some(read_format(&body[..length], &mut remarks)?),
            b"data" => {
                let format = format.ok_or_else(|| {
                    Unreadable::new("The recording is damaged: its WAV header does not say how it is encoded.")
                })?;
                // Streams write 0 or the largest number and never come back to correct it.
                let unknown = claimed == 0 || claimed >= 0x7fff_0000;
                if claimed > body.len() && !unknown {
                    remarks.push(CUT_OFF);
                }
                let rest = &body[length..];
                let finished = rest.len() < 8 || starts_chunk(rest) || starts_chunk(&rest[1..]);
                return Ok((format, if finished { &body[..length] } else { body }, remarks));
            }
            _ => {}
        }
        at += 8 + length;
        // Chunks are padded to even lengths, except by writers that forget it.
        if length % 2 == 1 && !bytes.get(at..).is_some_and(starts_chunk) {
            at += 1;
        }
    }
    Err(Unreadable::new("The recording is damaged: the WAV file holds no sound."))
}

/// Whether a chunk of a usual name starts here. Any four letters would do too often: samples can look like letters.
fn starts_chunk(bytes: &[u8]) -> bool {
    const USUAL: [&[u8; 4]; 12] =
        [b"fmt ", b"data", b"fact", b"LIST", b"INFO", b"PEAK", b"bext", b"cue ", b"id3 ", b"JUNK", b"PAD ", b"DISP"];
    bytes.len() >= 8 && USUAL.iter().any(|name| bytes.starts_with(*name))
}

fn read_format(body: &[u8], remarks: &mut Vec<&'static str>) -> Result<Format, Unreadable> {
    let word = |at: usize| body.get(at..at + 2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let (Some(mut tag), Some(channels), Some(low), Some(high), Some(bits)) =
        (word(0), word(2), word(4), word(6), word(14))
    else {
        return Err(Unreadable::new("The recording is damaged: its WAV header is too short."));
    };
    if tag == 0xfffe {
        // WAVE_FORMAT_EXTENSIBLE: the real tag opens the sub-format's GUID.
        tag = word(24).unwrap_or(tag);
    }
    let mut rate_hz = u32::from(low) | u32::from(high) << 16;
    if !(4_000..=48_000).contains(&rate_hz) {
        rate_hz = TELEPHONE_HZ;
        remarks.push("The recording does not say at which speed it plays; the usual one was taken.");
    }
    Ok(Format { tag, channels: usize::from(channels).clamp(1, 8), rate_hz, bits })
}

/// Samples of `width` bytes, the channels of one moment averaged.
fn frames(
    data: &[u8],
    format: &Format,
    width: usize,
    longest: usize,
    remarks: &mut Vec<&'static str>,
    read: impl Fn(&[u8]) -> i16,
) -> Vec<i16> {
    let frame = width * format.channels;
    if !data.len().is_multiple_of(frame) && !remarks.contains(&CUT_OFF) {
        remarks.push(CUT_OFF);
    }
    data.chunks_exact(frame)
        .take(longest)
        .map(|moment| {
            let sum: i32 = moment.chunks_exact(width).map(|sample| i32::from(read(sample))).sum();
            (sum / format.channels as i32) as i16
        })
        .collect()
}

/// WAV format 0x31: blocks of 65 bytes, two GSM frames each.
fn gsm_pairs(data: &[u8], longest: usize, remarks: &mut Vec<&'static str>) -> Vec<i16> {
    let mut decoder = gsm610::Decoder::default();
    let blocks = data.chunks_exact(65);
    // One byte over is the chunk's padding.
    if blocks.remainder().len() > 1 && !remarks.contains(&CUT_OFF) {
        remarks.push(CUT_OFF);
    }
    let mut samples = Vec::with_capacity(blocks.len().min(longest / 320 + 1) * 2 * gsm610::FRAME_SAMPLES);
    let mut silent = 0;
    for block in blocks.take(longest / (2 * gsm610::FRAME_SAMPLES) + 1) {
        // A hole that a crash left in the file decodes to a loud buzz, so it becomes silence.
        if block.iter().all(|&byte| byte == 0) {
            silent += 1;
            samples.extend([0; 2 * gsm610::FRAME_SAMPLES]);
            continue;
        }
        for frame in gsm610::Frame::pair_from_lsb_first(block.try_into().expect("chunks of 65")) {
            samples.extend(decoder.decode(&frame));
        }
    }
    if silent > 0 {
        remarks.push(DAMAGED);
    }
    samples
}
