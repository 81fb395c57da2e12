//! One mailbox account: brings its mail in and says how it is.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::supervisor::{Job, job as make};
use crate::{
    inbox::Inbox,
    mail::imap::{self, Account, ImapStatus},
    model::health::LineState,
};

pub fn job(inbox: Inbox, account: Arc<Account>) -> Job {
    make(move |reins| {
        let (inbox, account) = (inbox.clone(), account.clone());
        async move {
            let (status, mut news) = watch::channel(ImapStatus::default());
            let (wake, clock) = (Notify::new(), inbox.clock().clone());
            let now = move || clock.now();
            let report = async {
                while news.changed().await.is_ok() {
                    let status = news.borrow_and_update().clone();
                    let (state, detail) = health(&status);
                    inbox.report_health(&account.line, state, detail);
                }
            };
            let bring = imap::run(&account, &inbox, &status, &wake, &reins.stop, &now);
            tokio::select! {
                () = reins.beat_beside(bring) => {}
                () = report => {}
            }
            Ok(())
        }
    })
}

fn health(status: &ImapStatus) -> (LineState, Option<String>) {
    let state = match (&status.problem, status.connected_since) {
        (Some(what), _) => LineState::Down { what: what.clone() },
        (None, Some(_)) => LineState::Up,
        (None, None) => LineState::Starting,
    };
    let waiting = (status.unacknowledged > 0)
        .then(|| format!("{} stored mails are not acknowledged at the server yet", status.unacknowledged));
    (state, waiting)
}
