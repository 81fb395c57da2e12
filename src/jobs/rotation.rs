//! Seals everything again under the newest epoch after `rotate` was asked for, in small steps between everybody's work.

use std::time::Duration;

use super::supervisor::{Job, job as make};
use crate::inbox::{Inbox, InboxError};

/// How long a record that does not open may take to be restored before the next try.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(3600);

pub fn job(inbox: Inbox) -> Job {
    make(move |reins| {
        let inbox = inbox.clone();
        async move {
            let mut work = inbox.work();
            loop {
                let worked = async {
                    while inbox.go_on_rotating().await? {
                        tokio::task::yield_now().await;
                    }
                    Ok::<_, InboxError>(())
                };
                let rest = match reins.beat_beside(reins.stop.run_until_cancelled(worked)).await {
                    None => return Ok(()),
                    Some(Ok(())) => None,
                    Some(Err(error)) => {
                        tracing::error!(%error, "the rotation of keys stands still");
                        Some(TRY_AGAIN_AFTER)
                    }
                };
                let wait = async {
                    match rest {
                        Some(rest) => tokio::time::sleep(rest).await,
                        // The sender lives as long as the inbox.
                        None => drop(work.changed().await),
                    }
                };
                if reins.beat_beside(reins.stop.run_until_cancelled(wait)).await.is_none() {
                    return Ok(());
                }
            }
        }
    })
}
