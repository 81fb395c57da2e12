//! Filing: raw items are parsed, each on a blocking thread, and filed in the order of their arrival.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;

use super::supervisor::{Failure, Job, job as make};
use crate::{
    inbox::{Inbox, InboxError},
    mail,
    model::{
        ids::RawId,
        intake::{RawFormat, RawPart},
        parsed::{Parsed, ParsedFile, Unreadable},
    },
    sms,
    voicemail::{self, audio},
};

const PAGE: usize = 64;
/// Items that are parsed ahead.
const AHEAD: usize = 4;

pub fn job(inbox: Inbox, country: Arc<str>) -> Job {
    make(move |reins| {
        let (inbox, country) = (inbox.clone(), country.clone());
        async move {
            let mut work = inbox.work();
            loop {
                work.mark_unchanged();
                while file_page(&inbox, &country).await? {
                    reins.beat();
                    if reins.stop.is_cancelled() {
                        return Ok(());
                    }
                }
                reins.beat();
                tokio::select! {
                    _ = work.changed() => {}
                    () = tokio::time::sleep(Duration::from_secs(30)) => {}
                    () = reins.stop.cancelled() => return Ok(()),
                }
            }
        }
    })
}

/// Files the oldest waiting items. Gives whether there were any.
async fn file_page(inbox: &Inbox, country: &Arc<str>) -> Result<bool, Failure> {
    let waiting = inbox.to_file(PAGE).await?;
    let any = !waiting.is_empty();
    let parsed = futures_util::stream::iter(waiting).map(|id| parse_item(inbox, id, country.clone())).buffered(AHEAD);
    tokio::pin!(parsed);
    while let Some((id, parsed)) = parsed.next().await {
        match parsed {
            Ok(Some(parsed)) => {
                if let Err(error) = inbox.file(id, parsed).await {
                    tracing::warn!(item = %id, reason = %Failure::from(error), "an item could not be filed");
                    inbox.filing_failed(id).await?;
                }
            }
            // The parser panicked, or the item's bytes are damaged: it is to blame, and what follows goes on.
            Ok(None) => inbox.filing_failed(id).await?,
            Err(error) => {
                tracing::error!(item = %id, reason = %Failure::from(error), "an item cannot be read");
                inbox.filing_failed(id).await?;
            }
        }
    }
    Ok(any)
}

type Outcome = Result<Option<Result<Parsed, Unreadable>>, InboxError>;

async fn parse_item(inbox: &Inbox, id: RawId, country: Arc<str>) -> (RawId, Outcome) {
    let (format, parts) = match inbox.raw(id).await {
        Ok(raw) => raw,
        Err(error) => return (id, Err(error)),
    };
    let parsed = tokio::task::spawn_blocking(move || parse(format, &parts, &country)).await;
    if parsed.is_err() {
        tracing::error!(item = %id, "a parser panicked");
    }
    (id, Ok(parsed.ok()))
}

/// Many PBXs only send mails, with recordings that no browser plays (GSM or µ-law in WAV): those become PCM WAV. The
/// recording as it came stays in the raw mail, and what cannot be read stays an attachment.
fn make_playable(file: &mut ParsedFile) {
    let is_recording = file.media_type.starts_with("audio/") || file.name.to_lowercase().ends_with(".wav");
    if !is_recording || audio::plays_natively(&file.media_type, &file.bytes).is_some() {
        return;
    }
    if let Ok(playable) = audio::to_browser_wav(&file.name, &file.bytes) {
        file.bytes = playable.wav;
        file.media_type = "audio/wav".to_owned();
    }
}

/// Raw bytes to a domain value, by the channel's own parser.
pub fn parse(format: RawFormat, parts: &[RawPart], country: &str) -> Result<Parsed, Unreadable> {
    let only = || parts.first().map(|part| part.bytes.as_slice()).ok_or_else(|| Unreadable::new("nothing arrived"));
    match format {
        RawFormat::Rfc5322 => mail::parse::parse(only()?).map(|mut mail| {
            mail.attachments.iter_mut().for_each(make_playable);
            Parsed::Mail(Box::new(mail))
        }),
        RawFormat::SmsPdu => sms::pdu::decode(only()?, country),
        RawFormat::AsteriskVoicemail => voicemail::asterisk::parse(parts, country).map(Parsed::Voicemail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDING: &[u8] = include_bytes!("../../tests/fixtures/voicemail/spoken.WAV");

    /// A voicemail that the PBX sends by mail, in the format that Asterisk calls wav49, can be played.
    #[test]
    fn a_recording_in_a_mail_becomes_playable() {
        let mail = format!(
            "From: pbx@example.org\r\nSubject: Voicemail\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; \
             boundary=b\r\n\r\n--b\r\n\r\nNew message.\r\n--b\r\nContent-Type: audio/x-wav; \
             name=msg0000.WAV\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n--b--\r\n",
            data_encoding::BASE64.encode(RECORDING)
        );
        let parts = [RawPart { name: "mail".into(), bytes: mail.into_bytes() }];
        let Ok(Parsed::Mail(mail)) = parse(RawFormat::Rfc5322, &parts, "US") else { panic!("it is a mail") };
        let file = &mail.attachments[0];
        assert_eq!((file.media_type.as_str(), &file.bytes[..4]), ("audio/wav", &b"RIFF"[..]));
        assert!(file.bytes.len() > 4 * RECORDING.len(), "GSM became PCM");
    }
}
