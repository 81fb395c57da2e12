use super::*;

// 1.6 s of espeak-ng, coded by libgsm 1.0.22 through sox.
const SPOKEN_GSM: &[u8] = include_bytes!("../../../tests/fixtures/voicemail/spoken.gsm");
const SPOKEN_WAV49: &[u8] = include_bytes!("../../../tests/fixtures/voicemail/spoken.WAV");

fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// The samples of a WAV that this module made.
fn body(wav: &[u8]) -> &[u8] {
    &wav[44..]
}

fn wav_with(tag: u16, channels: u16, rate_hz: u32, bits: u16, data: &[u8], claimed: u32) -> Vec<u8> {
    let mut wav = b"RIFF\xff\xff\xff\x7fWAVEfmt \x10\0\0\0".to_vec();
    wav.extend(tag.to_le_bytes());
    wav.extend(channels.to_le_bytes());
    wav.extend(rate_hz.to_le_bytes());
    wav.extend(rate_hz.to_le_bytes());
    wav.extend((channels * bits / 8).to_le_bytes());
    wav.extend(bits.to_le_bytes());
    wav.extend(b"data");
    wav.extend(claimed.to_le_bytes());
    wav.extend(data);
    wav
}

fn samples(audio: &BrowserAudio) -> Vec<i16> {
    body(&audio.wav).chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

#[test]
fn gsm_decodes_bit_for_bit_as_libgsm_does() {
    for (name, bytes) in [("msg0000.gsm", SPOKEN_GSM), ("msg0000.WAV", SPOKEN_WAV49)] {
        let audio = to_browser_wav(name, bytes).unwrap();
        assert_eq!(
            sha256(body(&audio.wav)),
            "6caa84d38f4f8609604c01d7d40fe8f726ebba895b9bca7bfb92e9d731d2a082",
            "{name}"
        );
        assert_eq!((audio.duration_ms, audio.sample_rate_hz), (1600, 8000));
        assert_eq!(audio.remarks, Vec::<String>::new());
    }
}

#[test]
fn g711_decodes_every_byte_as_sox_does() {
    let every: Vec<u8> = (0..=255).collect();
    for (tag, name, sum) in [(7, "x.ulaw", ULAW_TABLE), (6, "x.alaw", ALAW_TABLE)] {
        let raw = to_browser_wav(name, &every).unwrap();
        let wav = to_browser_wav("x.wav", &wav_with(tag, 1, 8000, 8, &every, 256)).unwrap();
        assert_eq!(sha256(body(&raw.wav)), sum, "{name}");
        assert_eq!(raw, wav);
    }
}

const ULAW_TABLE: &str = "3dab54339e520bb2c924826e3b72a917a2b612e9fd12fc867500f1d983a75827";
const ALAW_TABLE: &str = "e04788d110e58ff8c70c93b8480190d973e3b67876b6119abbaec766cc75c174";

#[test]
fn pcm_of_every_usual_width_becomes_mono_of_16_bits() {
    let cases: [(u16, u16, &[u8], &[i16]); 6] = [
        (1, 8, &[0x80, 0xff, 0x00], &[0, 127 << 8, i16::MIN]),
        (1, 16, &[0x34, 0x12, 0xff, 0xff], &[0x1234, -1]),
        (1, 24, &[0x99, 0x34, 0x12], &[0x1234]),
        (1, 32, &[0x99, 0x99, 0x34, 0x12], &[0x1234]),
        (3, 32, &1.5f32.to_le_bytes(), &[i16::MAX]),
        (3, 32, &f32::NAN.to_le_bytes(), &[0]),
    ];
    for (tag, bits, data, expected) in cases {
        let audio = to_browser_wav("wav", &wav_with(tag, 1, 16000, bits, data, data.len() as u32)).unwrap();
        assert_eq!(samples(&audio), expected, "tag {tag}, {bits} bits");
        assert_eq!(audio.sample_rate_hz, 16000);
    }
    let stereo = to_browser_wav("wav", &wav_with(1, 2, 8000, 16, &[10, 0, 30, 0], 4)).unwrap();
    assert_eq!(samples(&stereo), [20]);
}

/// The duration is that of the samples, whatever the header says.
#[test]
fn lengths_that_lie_do_not_matter() {
    let second = [1u8, 0].repeat(8000);
    for claimed in [16_000, 0, 4, 0xffff_ffff, 0x7fff_ffff, 999_999] {
        let audio = to_browser_wav("wav", &wav_with(1, 1, 8000, 16, &second, claimed)).unwrap();
        assert_eq!(audio.duration_ms, 1000, "claimed {claimed}");
        assert_eq!(audio.remarks.is_empty(), claimed != 999_999);
    }
    // A real chunk after the samples is not audio.
    let mut tagged = second.clone();
    tagged.extend(b"LIST\x04\0\0\0INFO");
    assert_eq!(to_browser_wav("wav", &wav_with(1, 1, 8000, 16, &tagged, 16_000)).unwrap().duration_ms, 1000);
}

#[test]
fn odd_chunks_are_passed_with_and_without_padding() {
    let data = [1u8, 0].repeat(80);
    let plain = wav_with(1, 1, 8000, 16, &data, 160);
    for padding in [&b""[..], b"\0"] {
        let mut wav = plain[..12].to_vec();
        wav.extend(b"JUNK\x03\0\0\0abc");
        wav.extend(padding);
        wav.extend(&plain[12..]);
        assert_eq!(to_browser_wav("wav", &wav).unwrap().duration_ms, 10, "{} bytes of padding", padding.len());
    }
}

#[test]
fn extensible_rf64_and_unknown_rates_are_read() {
    let data = [1u8, 0].repeat(8000);
    let mut extensible = b"RF64\xff\xff\xff\xffWAVEds64\x04\0\0\0\0\0\0\0fmt \x28\0\0\0".to_vec();
    extensible.extend(0xfffeu16.to_le_bytes());
    extensible.extend([1, 0]);
    extensible.extend(8000u32.to_le_bytes());
    extensible.extend([0; 4]);
    extensible.extend([2, 0, 16, 0, 22, 0, 16, 0, 4, 0, 0, 0]);
    extensible.extend([1, 0, 0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71]);
    extensible.extend(b"data\xff\xff\xff\xff");
    extensible.extend(&data);
    assert_eq!(to_browser_wav("wav", &extensible).unwrap().duration_ms, 1000);
    let odd = to_browser_wav("wav", &wav_with(1, 1, 7, 16, &data, 16_000)).unwrap();
    assert_eq!((odd.sample_rate_hz, odd.remarks.len()), (8000, 1));
}

#[test]
fn cut_and_damaged_recordings_keep_what_can_be_heard() {
    let cut = to_browser_wav("a.gsm", &SPOKEN_GSM[..SPOKEN_GSM.len() - 7]).unwrap();
    assert_eq!((cut.duration_ms, cut.remarks.len()), (1580, 1));
    let cut = to_browser_wav("a.WAV", &SPOKEN_WAV49[..SPOKEN_WAV49.len() - 7]).unwrap();
    assert_eq!((cut.duration_ms, cut.remarks.len()), (1560, 1));
    let mut hole = SPOKEN_GSM.to_vec();
    hole[33..99].fill(0);
    let hole = to_browser_wav("a.gsm", &hole).unwrap();
    assert_eq!((hole.duration_ms, hole.remarks.len()), (1600, 1));
    assert!(samples(&hole)[160..480].iter().all(|&sample| sample == 0));
}

#[test]
fn what_cannot_be_heard_is_said_to_be_so() {
    let endless_noise = [0x55u8; 330];
    for (name, bytes) in [
        ("a.wav", &b""[..]),
        ("a.wav", b"RIFF"),
        ("a.wav", b"RIFF\0\0\0\0WAVE"),
        ("a.wav", b"RIFF\0\0\0\0WAVEdata\0\0\0\0"),
        ("a.wav", b"not a sound at all"),
        ("a.gsm", &SPOKEN_GSM[..32]),
        ("a.gsm", &endless_noise),
        ("a.g729", &endless_noise),
        ("", &endless_noise),
    ] {
        let error = to_browser_wav(name, bytes).unwrap_err();
        assert!(error.what.starts_with("The recording"), "{name}: {error}");
    }
    let adpcm = wav_with(0x11, 1, 8000, 4, &[0; 64], 64);
    assert_eq!(
        to_browser_wav("a.wav", &adpcm).unwrap_err().what,
        "The recording's WAV encoding (0x0011) cannot be played here."
    );
}

#[test]
fn recordings_end_after_half_an_hour() {
    let audio = to_browser_wav("a.ulaw", &vec![0xff; 8000 * (MAX_SECONDS + 5)]).unwrap();
    assert_eq!((audio.duration_ms, audio.remarks.len()), (1_800_000, 1));
}

#[test]
fn peaks_follow_the_loudness() {
    let mut wave = vec![0i16; 800];
    wave.extend([i16::MIN; 800]);
    wave.extend([8192; 800]);
    assert_eq!(peaks(&encode_pcm16(8000, &wave), 3), [0, 255, 127]);
    assert_eq!(peaks(&encode_pcm16(8000, &[100]), 4), [255; 4]);
    assert_eq!(peaks(&encode_pcm16(8000, &[0, 0]), 2), [0; 2]);
    assert!(peaks(b"nonsense", 96).is_empty());
}

#[test]
fn browsers_are_given_what_they_play() {
    for (declared, start, expected) in [
        ("application/octet-stream", &b"ID3\x04"[..], Some("audio/mpeg")),
        ("audio/mpeg", b"\xff\xfb\x90\x00", Some("audio/mpeg")),
        ("image/jpeg", b"\xff\xfb\x90\x00", None),
        ("audio/aac", b"\xff\xf1\x50\x80", Some("audio/aac")),
        ("audio/x-m4a", b"\0\0\0\x20ftypM4A ", Some("audio/mp4")),
        ("audio/ogg", b"OggS\0", Some("audio/ogg")),
        ("audio/wav", b"RIFF\0\0\0\0WAVE", None),
        ("audio/mpeg", b"", None),
    ] {
        assert_eq!(plays_natively(declared, start), expected, "{declared}");
    }
}

/// Seeded mutations of every format: never a panic, never more than the cap.
#[test]
fn mutated_recordings_never_panic() {
    let ulaw = wav_with(7, 2, 8000, 8, &[0x55; 400], 400);
    let pcm = encode_pcm16(8000, &[1000; 200]);
    let seeds: [(&str, &[u8]); 4] =
        [("a.gsm", &SPOKEN_GSM[..330]), ("a.WAV", &SPOKEN_WAV49[..400]), ("a.wav", &ulaw), ("a.wav", &pcm)];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for round in 0..3_000 {
        let (name, seed) = seeds[round % seeds.len()];
        let mut bytes = seed.to_vec();
        for _ in 0..=random(8) {
            // Most of what can go wrong is in the header.
            let at = if random(2) == 0 { random(bytes.len().min(64)) } else { random(bytes.len()) };
            match random(4) {
                0 => bytes[at] = [0, 0xff, 0x7f, 0x80][random(4)],
                1 => bytes[at] ^= 1 << random(8),
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, random(256) as u8),
            }
        }
        if let Ok(audio) = to_browser_wav(name, &bytes) {
            assert!(audio.wav.len() <= 44 + bytes.len() * 12, "round {round}");
            assert_eq!(peaks(&audio.wav, 96).len(), 96, "round {round}");
        }
    }
}
