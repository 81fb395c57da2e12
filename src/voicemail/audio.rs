//! Telephone audio in, a PCM WAV out that every browser plays and seeks in (requirements V9).
//!
//! PBXs keep WAV with PCM, µ-law, A-law or GSM 06.10 inside ("WAV49"), and the last three also raw. Only PCM plays
//! everywhere, so everything becomes mono PCM of 16 bits at the rate it was recorded at. Headers lie about lengths,
//! so the duration is counted in samples. MP3, AAC, Ogg and their like stay as they came: see [`plays_natively`].

mod g711;
mod gsm610;
mod wav;

#[cfg(test)]
mod tests;

use crate::model::parsed::Unreadable;

pub use wav::encode_pcm16;

/// Longer recordings are cut here: 30 minutes at 8 kHz are 29 MB of PCM.
pub const MAX_SECONDS: usize = 30 * 60;

/// How many values draw a recording.
pub const PEAKS: usize = 96;

/// What telephones sample at, and what headerless files are taken for.
pub const TELEPHONE_HZ: u32 = 8_000;

/// Audio that every browser plays.
#[derive(Clone, PartialEq)]
pub struct BrowserAudio {
    /// A RIFF WAV file: PCM, signed 16 bits, little-endian, mono.
    pub wav: Vec<u8>,
    pub sample_rate_hz: u32,
    /// Counted from the samples.
    pub duration_ms: u32,
    /// What was wrong with the recording, in words for staff.
    pub remarks: Vec<String>,
}

impl std::fmt::Debug for BrowserAudio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BrowserAudio({} ms)", self.duration_ms)
    }
}

/// Makes a recording playable. `name` is a file name, a bare extension or a media type; what the bytes say about
/// themselves goes first. Fails, in words for staff, where there is nothing to hear.
pub fn to_browser_wav(name: &str, bytes: &[u8]) -> Result<BrowserAudio, Unreadable> {
    let sound = decode(name, bytes)?;
    Ok(BrowserAudio {
        wav: encode_pcm16(sound.rate_hz, &sound.samples),
        sample_rate_hz: sound.rate_hz,
        duration_ms: sound.duration_ms(),
        remarks: sound.remarks.iter().map(|&remark| remark.to_owned()).collect(),
    })
}

/// The loudness over time for a drawing: `buckets` values, 255 being the loudest moment of this recording.
/// Empty where the audio cannot be read.
pub fn peaks(wav: &[u8], buckets: usize) -> Vec<u8> {
    let Ok(sound) = decode("wav", wav) else { return Vec::new() };
    let loudest = sound.samples.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0).max(1);
    let count = sound.samples.len();
    (0..buckets)
        .map(|bucket| {
            let (from, to) = (bucket * count / buckets, (bucket + 1) * count / buckets);
            let here =
                sound.samples[from..to.max(from + 1).min(count)].iter().map(|sample| sample.unsigned_abs()).max();
            // The square root keeps quiet speech visible beside a loud cough.
            ((f32::from(here.unwrap_or(0)) / f32::from(loudest)).sqrt() * 255.0) as u8
        })
        .collect()
}

/// The media type under which a browser plays these bytes as they are; `None` means [`to_browser_wav`] first.
/// The first bytes decide; the declared type only settles what they leave open. WAV always gets the second
/// treatment, since a browser plays only some of what a WAV file can hold.
pub fn plays_natively(media_type: &str, start: &[u8]) -> Option<&'static str> {
    let declared = |wanted: &[&str]| wanted.contains(&media_type.trim().to_ascii_lowercase().as_str());
    match start {
        [b'I', b'D', b'3', ..] => Some("audio/mpeg"),
        [b'O', b'g', b'g', b'S', ..] => Some("audio/ogg"),
        [b'f', b'L', b'a', b'C', ..] => Some("audio/flac"),
        [_, _, _, _, b'f', b't', b'y', b'p', b'M' | b'm' | b'i', ..] => Some("audio/mp4"),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => Some("audio/webm"),
        // ADTS has layer bits 00; MPEG audio never does (ISO/IEC 13818-7 section 6.2, 11172-3 section 2.4.2.3).
        [0xff, second, ..] if second & 0xf6 == 0xf0 => {
            declared(&["audio/aac", "audio/aacp", "audio/x-aac"]).then_some("audio/aac")
        }
        [0xff, second, ..] if second & 0xe0 == 0xe0 => {
            declared(&["audio/mpeg", "audio/mp3", "audio/x-mp3", "audio/x-mpeg", "audio/mpeg3"]).then_some("audio/mpeg")
        }
        _ => None,
    }
}

/// Samples at one rate, one channel.
struct Sound {
    samples: Vec<i16>,
    rate_hz: u32,
    remarks: Vec<&'static str>,
}

impl Sound {
    fn duration_ms(&self) -> u32 {
        let ms = self.samples.len() as u64 * 1000 / u64::from(self.rate_hz.max(1));
        u32::try_from(ms).unwrap_or(u32::MAX)
    }
}

const CUT_OFF: &str = "The recording ends in the middle: it was cut off at the PBX.";
const TOO_LONG: &str = "The recording is longer than 30 minutes; only these are shown.";
const DAMAGED: &str = "Parts of the recording are damaged and were left silent.";

fn decode(name: &str, bytes: &[u8]) -> Result<Sound, Unreadable> {
    if bytes.is_empty() {
        return Err(Unreadable::new("The recording is empty: the file has no bytes."));
    }
    let kind = name.rsplit(['.', '/']).next().unwrap_or_default().to_ascii_lowercase();
    let longest = MAX_SECONDS * TELEPHONE_HZ as usize;
    let mut sound = if wav::is_riff(bytes) {
        wav::decode(bytes)?
    } else {
        let (samples, remark) = match kind.as_str() {
            "gsm" => gsm_frames(bytes)?,
            "ulaw" | "ul" | "mu" | "mulaw" | "pcmu" | "ulw" | "pcm" | "basic" => {
                (bytes.iter().take(longest + 1).map(|&byte| g711::from_ulaw(byte)).collect(), None)
            }
            "alaw" | "al" | "pcma" | "alw" => {
                (bytes.iter().take(longest + 1).map(|&byte| g711::from_alaw(byte)).collect(), None)
            }
            "sln" | "raw" => {
                let pairs = bytes.chunks_exact(2).take(longest + 1);
                let cut = (bytes.len() % 2 == 1).then_some(CUT_OFF);
                (pairs.map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect(), cut)
            }
            "wav" | "x-wav" | "wave" | "vnd.wave" => {
                return Err(Unreadable::new("The recording is damaged: it does not start as a WAV file does."));
            }
            _ => return Err(Unreadable::new("The recording is in a format that cannot be played here.")),
        };
        Sound { samples, rate_hz: TELEPHONE_HZ, remarks: remark.into_iter().collect() }
    };
    if sound.samples.is_empty() {
        return Err(Unreadable::new("The recording is empty: the file holds no sound."));
    }
    let longest = MAX_SECONDS * sound.rate_hz as usize;
    if sound.samples.len() > longest {
        sound.samples.truncate(longest);
        sound.remarks.push(TOO_LONG);
    }
    Ok(sound)
}

/// Raw GSM 06.10 as Asterisk's `.gsm` keeps it: frames of 33 bytes, each begun by the bits 1101.
fn gsm_frames(bytes: &[u8]) -> Result<(Vec<i16>, Option<&'static str>), Unreadable> {
    let mut decoder = gsm610::Decoder::default();
    let mut remark = (!bytes.len().is_multiple_of(33)).then_some(CUT_OFF);
    let frames = bytes.chunks_exact(33).take(MAX_SECONDS * 50 + 1);
    let mut samples = Vec::with_capacity(frames.len() * gsm610::FRAME_SAMPLES);
    let mut good = 0;
    for frame in frames {
        if frame[0] >> 4 == 0xd {
            good += 1;
            samples.extend(decoder.decode(&gsm610::Frame::from_msb_first(frame.try_into().expect("chunks of 33"))));
        } else {
            remark = Some(DAMAGED);
            samples.extend([0; gsm610::FRAME_SAMPLES]);
        }
    }
    if good * 2 < samples.len() / gsm610::FRAME_SAMPLES {
        return Err(Unreadable::new("The recording is damaged: it does not hold GSM audio."));
    }
    Ok((samples, remark))
}
