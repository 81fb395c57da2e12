//! Voices for the simulated PBX: something that sounds like speech without anybody having spoken.

use std::f32::consts::TAU;

use crate::voicemail::audio::{TELEPHONE_HZ, encode_pcm16};

/// One recording of a call in one format, as Asterisk's `format=` makes them.
#[derive(Clone)]
pub struct AudioFile {
    /// Without the point: `wav`, `WAV`, `gsm`.
    pub extension: &'static str,
    pub bytes: Vec<u8>,
    pub duration_ms: u32,
}

impl AudioFile {
    /// `format=wav`: PCM of 16 bits.
    pub fn pcm(samples: &[i16]) -> Self {
        Self { extension: "wav", bytes: encode_pcm16(TELEPHONE_HZ, samples), duration_ms: duration_ms(samples.len()) }
    }

    /// A WAV file with µ-law (format 7), as some PBXs mail them.
    pub fn ulaw(samples: &[i16]) -> Self {
        let body = samples.len() as u32;
        let mut bytes = b"RIFF".to_vec();
        bytes.extend((38 + body).to_le_bytes());
        bytes.extend(b"WAVEfmt \x12\0\0\0\x07\0\x01\0");
        bytes.extend(TELEPHONE_HZ.to_le_bytes());
        bytes.extend(TELEPHONE_HZ.to_le_bytes());
        bytes.extend(b"\x01\0\x08\0\0\0data");
        bytes.extend(body.to_le_bytes());
        bytes.extend(samples.iter().map(|&sample| to_ulaw(sample)));
        Self { extension: "wav", bytes, duration_ms: duration_ms(samples.len()) }
    }

    /// `format=wav49`: a caller who wants another appointment, spoken by espeak-ng.
    pub fn wav49() -> Self {
        // Blocks of 65 bytes hold 320 samples; a header of 60 bytes stands before them.
        let bytes = include_bytes!("spoken.WAV").to_vec();
        let duration_ms = duration_ms((bytes.len() - 60) / 65 * 320);
        Self { extension: "WAV", bytes, duration_ms }
    }

    /// A file that holds something else than it should, or nothing.
    pub fn damaged(extension: &'static str, bytes: &[u8]) -> Self {
        Self { extension, bytes: bytes.to_vec(), duration_ms: 0 }
    }
}

fn duration_ms(samples: usize) -> u32 {
    (samples as u64 * 1000 / u64::from(TELEPHONE_HZ)) as u32
}

/// A voice that says nothing in particular, at 8 kHz: a buzz through three resonances that glide from vowel to vowel, in
/// syllables with pauses between the words. The same seed gives the same voice.
pub fn spoken(seed: u64, seconds: f32) -> Vec<i16> {
    // The first three formants of a, e, i, o, u, in Hz.
    const VOWELS: [[f32; 3]; 5] =
        [[730., 1090., 2440.], [530., 1840., 2480.], [270., 2290., 3010.], [570., 840., 2410.], [300., 870., 2240.]];
    const BANDWIDTHS: [f32; 3] = [70., 100., 140.];
    let rate = TELEPHONE_HZ as f32;
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let pitch = 95. + 120. * random.unit();
    let mut resonators = [[0f32; 2]; 3];
    let mut formants = VOWELS[0];
    let mut phase = 0.;
    let count = (seconds.clamp(0., 60.) * rate) as usize;
    let mut wave = Vec::with_capacity(count);
    while wave.len() < count {
        let vowel = VOWELS[(random.unit() * 5.) as usize % 5];
        let syllable = ((0.12 + 0.16 * random.unit()) * rate) as usize;
        let (rise, stress) = (0.9 + 0.3 * random.unit(), 0.5 + 0.5 * random.unit());
        let hiss = if random.unit() < 0.35 { (0.05 * rate) as usize } else { 0 };
        for i in 0..syllable {
            let along = i as f32 / syllable as f32;
            phase = (phase + pitch * (1. + (rise - 1.) * along) / rate).fract();
            // A glottal pulse falls off about 12 dB per octave; a consonant is noise instead.
            let source = if i < hiss { random.unit() - 0.5 } else { (1. - phase).powi(3) - 0.25 };
            let mut sound = 0.;
            for (n, memory) in resonators.iter_mut().enumerate() {
                formants[n] += (vowel[n] - formants[n]) * 0.004;
                let radius = (-TAU / 2. * BANDWIDTHS[n] / rate).exp();
                let out =
                    source + 2. * radius * (TAU * formants[n] / rate).cos() * memory[0] - radius * radius * memory[1];
                *memory = [out, memory[0]];
                sound += out * (1. - radius) / (n + 1) as f32;
            }
            wave.push(sound * stress * (along * TAU / 2.).sin().max(0.));
        }
        let pause = if random.unit() < 0.3 { 0.18 * random.unit() } else { 0.015 };
        wave.extend(std::iter::repeat_n(0., (pause * rate) as usize));
    }
    wave.truncate(count);
    let loudest = wave.iter().fold(1e-6f32, |loudest, sample| loudest.max(sample.abs()));
    wave.iter().map(|sample| (sample / loudest * 14_000.) as i16).collect()
}

/// xorshift64: the same everywhere, which is all that is asked of it.
struct Random(u64);

impl Random {
    /// 0 to below 1.
    fn unit(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }
}

/// ITU-T G.711 section 3.2.
fn to_ulaw(sample: i16) -> u8 {
    let magnitude = (i32::from(sample).abs().min(32_635) + 132) >> 3;
    // The position of the highest bit above the four of the step.
    let segment = (31 - magnitude.leading_zeros() as i32 - 4).max(0);
    let byte = (segment << 4 | (magnitude >> segment) & 15) as u8;
    !(byte | if sample < 0 { 0x80 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::voicemail::audio::to_browser_wav;

    #[test]
    fn every_kind_of_recording_plays() {
        let samples = spoken(7, 2.5);
        assert_eq!(samples.len(), 20_000);
        assert!(samples == spoken(7, 2.5) && samples != spoken(8, 2.5));
        assert!(samples.iter().any(|sample| sample.abs() > 10_000));
        for audio in [AudioFile::pcm(&samples), AudioFile::ulaw(&samples), AudioFile::wav49()] {
            let played = to_browser_wav(audio.extension, &audio.bytes).unwrap();
            assert_eq!(played.duration_ms, audio.duration_ms);
            assert_eq!(played.remarks, Vec::<String>::new());
        }
    }

    #[test]
    fn ulaw_comes_back_within_its_step() {
        let wave: Vec<i16> = (-32_000..32_000).step_by(37).map(|sample| sample as i16).collect();
        let played = to_browser_wav("wav", &AudioFile::ulaw(&wave).bytes).unwrap();
        for (pair, sample) in played.wav[44..].chunks_exact(2).zip(&wave) {
            let back = i32::from(i16::from_le_bytes([pair[0], pair[1]]));
            let error = (back - i32::from(*sample)).abs();
            assert!(error <= 4 + i32::from(*sample).abs() / 24, "{sample} came back as {back}");
        }
    }
}
