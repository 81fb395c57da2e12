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
        parsed::{Parsed, Unreadable},
    },
    sms, voicemail,
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
        match parsed? {
            Some(parsed) => {
                if let Err(error) = inbox.file(id, parsed).await {
                    tracing::warn!(item = %id, reason = %Failure::from(error), "an item could not be filed");
                    inbox.filing_failed(id).await?;
                }
            }
            // The parser panicked: the item is to blame, not the job.
            None => inbox.filing_failed(id).await?,
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

/// Raw bytes to a domain value, by the channel's own parser.
pub fn parse(format: RawFormat, parts: &[RawPart], country: &str) -> Result<Parsed, Unreadable> {
    let only = || parts.first().map(|part| part.bytes.as_slice()).ok_or_else(|| Unreadable::new("nothing arrived"));
    match format {
        RawFormat::Rfc5322 => mail::parse::parse(only()?).map(|mail| Parsed::Mail(Box::new(mail))),
        RawFormat::SmsPdu => sms::pdu::decode(only()?, country),
        RawFormat::AsteriskVoicemail => voicemail::asterisk::parse(parts, country).map(Parsed::Voicemail),
    }
}
