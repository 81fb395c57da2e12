//! What a file really is: by its first bytes where they are known, else as its sender declared it.

/// The media type of a file: by magic bytes where they are known, else `declared`, else `application/octet-stream`.
///
/// Containers tell less than their declaration: a ZIP that is declared as a word processor's file stays one, and an
/// MP4 or 3GP that is declared as audio stays audio, so that the inbox plays it like a voicemail.
pub fn media_type(bytes: &[u8], declared: &str) -> String {
    let declared = declared.trim().to_ascii_lowercase();
    match sniff(bytes) {
        Some("application/zip") if is_packed_format(&declared) => declared,
        Some("video/mp4") if declared.starts_with("audio/") => "audio/mp4".to_owned(),
        Some("video/3gpp") if declared.starts_with("audio/") => "audio/3gpp".to_owned(),
        Some("audio/ogg") if declared.starts_with("video/") => "video/ogg".to_owned(),
        Some(known) => known.to_owned(),
        None if is_media_type(&declared) => declared,
        None => "application/octet-stream".to_owned(),
    }
}

/// A file extension for a nameless part.
pub fn extension(media_type: &str) -> &'static str {
    match media_type {
        "image/png" => "png",
        "image/jpeg" => "jpg",
        "image/gif" => "gif",
        "image/webp" => "webp",
        "image/heic" => "heic",
        "application/pdf" => "pdf",
        "application/zip" => "zip",
        "audio/wav" => "wav",
        "audio/mpeg" => "mp3",
        "audio/ogg" => "ogg",
        "audio/mp4" => "m4a",
        "audio/amr" => "amr",
        "audio/3gpp" | "video/3gpp" => "3gp",
        "video/mp4" => "mp4",
        "text/plain" => "txt",
        "text/html" => "html",
        "text/csv" => "csv",
        "text/calendar" => "ics",
        "message/rfc822" => "eml",
        "application/pkcs7-mime" | "application/x-pkcs7-mime" => "p7m",
        "application/pkcs7-signature" | "application/x-pkcs7-signature" => "p7s",
        "application/ms-tnef" => "dat",
        _ => "bin",
    }
}

fn sniff(bytes: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..offset + magic.len()) == Some(magic);
    if at(0, b"\x89PNG\r\n\x1a\n") {
        Some("image/png")
    } else if at(0, b"\xff\xd8\xff") {
        Some("image/jpeg")
    } else if at(0, b"GIF87a") || at(0, b"GIF89a") {
        Some("image/gif")
    } else if at(0, b"RIFF") && at(8, b"WEBP") {
        Some("image/webp")
    } else if at(0, b"RIFF") && at(8, b"WAVE") {
        Some("audio/wav")
    } else if at(0, b"%PDF-") {
        Some("application/pdf")
    } else if at(0, b"PK\x03\x04") || at(0, b"PK\x05\x06") {
        Some("application/zip")
    } else if at(0, b"OggS") {
        Some("audio/ogg")
    } else if at(0, b"#!AMR") {
        Some("audio/amr")
    } else if at(0, b"ID3") || is_mp3_frame(bytes) {
        Some("audio/mpeg")
    } else if at(4, b"ftyp") {
        bytes.get(8..12).map(|brand| match brand {
            b"M4A " | b"M4B " => "audio/mp4",
            b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1" => "image/heic",
            brand if brand.starts_with(b"3g") => "video/3gpp",
            _ => "video/mp4",
        })
    } else {
        None
    }
}

/// Eleven sync bits, a known MPEG version, layer III, a legal bit rate and sampling rate: anything less would also
/// match the byte order mark of UTF-16.
fn is_mp3_frame(bytes: &[u8]) -> bool {
    let &[0xff, version_layer, rates, ..] = bytes else { return false };
    version_layer & 0xe6 == 0xe2 && version_layer & 0x18 != 0x08 && rates >> 4 != 0x0f && rates & 0x0c != 0x0c
}

fn is_packed_format(declared: &str) -> bool {
    declared.starts_with("application/vnd.") || declared == "application/epub+zip"
}

fn is_media_type(text: &str) -> bool {
    let token =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b));
    text.len() <= 100 && text.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_bytes_win_over_the_declaration_where_they_say_more() {
        let word = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
        let table: &[(&[u8], &str, &str)] = &[
            (b"\x89PNG\r\n\x1a\nrest", "application/octet-stream", "image/png"),
            (b"\xff\xd8\xff\xe0", "image/png", "image/jpeg"),
            (b"GIF89a", "", "image/gif"),
            (b"RIFF\0\0\0\0WEBP", "", "image/webp"),
            (b"RIFF\0\0\0\0WAVEfmt ", "audio/x-wav", "audio/wav"),
            (b"%PDF-1.7", "text/plain", "application/pdf"),
            (b"PK\x03\x04", word, word),
            (b"PK\x03\x04", "application/octet-stream", "application/zip"),
            (b"OggS", "audio/opus", "audio/ogg"),
            (b"#!AMR\n", "application/octet-stream", "audio/amr"),
            (b"ID3\x04", "", "audio/mpeg"),
            (b"\xff\xfb\x90\x64", "", "audio/mpeg"),
            (b"\xff\xfeh\0i\0", "text/plain", "text/plain"),
            (b"\0\0\0\x20ftypM4A ", "", "audio/mp4"),
            (b"\0\0\0\x20ftypisom", "audio/x-m4a", "audio/mp4"),
            (b"\0\0\0\x20ftypisom", "", "video/mp4"),
            (b"\0\0\0\x18ftypheic", "image/jpeg", "image/heic"),
            (b"\0\0\0\x18ftyp3gp4", "audio/3gpp", "audio/3gpp"),
            (b"BEGIN:VCALENDAR", "Text/Calendar", "text/calendar"),
            (b"", "audio/x-gsm", "audio/x-gsm"),
            (b"x", "text/html\r\nX-Evil: 1", "application/octet-stream"),
            (b"x", "nonsense", "application/octet-stream"),
        ];
        for (bytes, declared, expected) in table {
            assert_eq!(&media_type(bytes, declared), expected, "{declared}");
        }
    }
}
