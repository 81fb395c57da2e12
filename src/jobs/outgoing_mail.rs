//! One mail line's outbox: hands over what is due, one after another.

use std::sync::Arc;

use super::supervisor::{Job, job as make};
use crate::{
    inbox::{Inbox, NextDue, Outgoing},
    mail::{self, Secret, smtp::SmtpConfig},
    model::line::LineId,
};

pub fn job(inbox: Inbox, line: LineId, config: Arc<SmtpConfig>, password: Secret) -> Job {
    make(move |reins| {
        let (inbox, line, config, password) = (inbox.clone(), line.clone(), config.clone(), password.clone());
        async move {
            // A run before this one may have died with a mail in its hands.
            inbox.recover_line(&line).await?;
            while let Some(id) = next(&inbox, &line, &reins).await? {
                let Some(Outgoing::Mail(mail)) = inbox.begin_hand_over(id).await? else { continue };
                // Once begun, a hand-over is waited for: cutting it off would leave it unconfirmed.
                let ended = mail::smtp::send(&config, &password, &mail).await;
                inbox.end_hand_over(id, ended).await?;
                reins.beat();
            }
            Ok(())
        }
    })
}

/// Waits until this line has something to send; `None` when the job is to stop.
pub(super) async fn next(
    inbox: &Inbox,
    line: &LineId,
    reins: &super::supervisor::Reins,
) -> Result<Option<crate::model::ids::MessageId>, super::supervisor::Failure> {
    let mut work = inbox.work();
    loop {
        work.mark_unchanged();
        let due = inbox.next_due(line).await?;
        reins.beat();
        let at = match due {
            _ if reins.stop.is_cancelled() => return Ok(None),
            NextDue::Now(id) => return Ok(Some(id)),
            NextDue::At(at) => Some(at),
            NextDue::Nothing => None,
        };
        let clock = inbox.clock();
        // The beat of a job that has nothing to do.
        let pause = tokio::time::sleep(std::time::Duration::from_secs(30));
        tokio::select! {
            _ = work.changed() => {}
            () = async { match at { Some(at) => clock.wait_until(at).await, None => std::future::pending().await } } => {}
            () = pause => {}
            () = reins.stop.cancelled() => return Ok(None),
        }
    }
}
