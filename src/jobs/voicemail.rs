//! One PBX line: brings its voicemail in, tells the PBX what staff handled, and notes what was heard by telephone.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};

use super::supervisor::{Failure, Job, Reins, job as make};
use crate::{
    inbox::Inbox,
    model::{health::LineState, line::LineId},
    voicemail::asterisk::{self, AmiSecret, AsteriskConfig, Elsewhere, Health, MarkHeard, Ports, Status},
};

/// What the PBX did not take is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(20);

pub fn job(inbox: Inbox, line: LineId, config: Arc<AsteriskConfig>, secret: AmiSecret) -> Job {
    make(move |reins| {
        let (inbox, line, config, secret) = (inbox.clone(), line.clone(), config.clone(), secret.clone());
        async move {
            let (mark, heard) = mpsc::channel(8);
            let (tell, elsewhere) = mpsc::channel(64);
            let (status, news) = watch::channel(Status::default());
            let ami = news.clone();
            let ports = Ports { heard, elsewhere: tell, status, shutdown: reins.stop.clone() };
            let bring = asterisk::run(&config, &secret, &line, &inbox, ports);
            tokio::select! {
                () = reins.beat_beside(bring) => Ok(()),
                done = tell_pbx(&inbox, &line, config.ami.is_some().then_some(ami), &mark, &reins) => done,
                done = note_elsewhere(&inbox, &line, elsewhere) => done,
                () = report(&inbox, &line, news) => Ok(()),
            }
        }
    })
}

/// Marks at the PBX what staff handled, where there is AMI to do it by.
async fn tell_pbx(
    inbox: &Inbox,
    line: &LineId,
    ami: Option<watch::Receiver<Status>>,
    mark: &mpsc::Sender<MarkHeard>,
    reins: &Reins,
) -> Result<(), Failure> {
    let Some(mut ami) = ami else {
        reins.stop.cancelled().await;
        return Ok(());
    };
    let mut work = inbox.work();
    loop {
        work.mark_unchanged();
        let was_away = ami.borrow().ami != Health::Good;
        let waiting = inbox.to_mark_heard(line).await?;
        let mut left = false;
        for (id, item) in waiting {
            let (answer, told) = oneshot::channel();
            let asked = mark.send(MarkHeard { item, answer }).await;
            match (asked, told.await) {
                (Ok(()), Ok(Ok(_))) => inbox.marked_heard(id).await?,
                _ => left = true,
            }
        }
        tokio::select! {
            _ = work.changed() => {}
            () = tokio::time::sleep(TELL_AGAIN), if left => {}
            _ = ami.wait_for(|status| status.ami == Health::Good), if left && was_away => {}
            () = reins.stop.cancelled() => return Ok(()),
        }
    }
}

async fn note_elsewhere(inbox: &Inbox, line: &LineId, mut elsewhere: mpsc::Receiver<Elsewhere>) -> Result<(), Failure> {
    while let Some(Elsewhere { item, .. }) = elsewhere.recv().await {
        inbox.heard_by_phone(line, &item.msg_id).await?;
    }
    Ok(())
}

async fn report(inbox: &Inbox, line: &LineId, mut news: watch::Receiver<Status>) {
    while news.changed().await.is_ok() {
        let status = news.borrow_and_update().clone();
        let state = match (&status.spool, &status.ami) {
            (Health::Bad(what), _) | (_, Health::Bad(what)) => LineState::Down { what: what.clone() },
            // While a caller hangs up, the count may be ahead of the file for a moment; the next look mends it.
            (Health::Good, _) if status.boxes.iter().any(asterisk::BoxStatus::seems_kept_elsewhere) => LineState::Down {
                what:
                    "the PBX counts messages and the spool holds none: it keeps voicemail by ODBC or IMAP, or `spool` \
                       names another directory"
                        .to_owned(),
            },
            (Health::Good, _) => LineState::Up,
            _ => LineState::Starting,
        };
        let full = status.boxes.iter().find(|mailbox| mailbox.is_nearly_full());
        let detail = full.map(|mailbox| {
            format!("a voicemail box is nearly full ({} of {}): delete old messages", mailbox.fullest, mailbox.limit)
        });
        inbox.report_health(line, state, detail);
    }
}
