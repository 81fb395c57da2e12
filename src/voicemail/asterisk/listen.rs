//! The loop that keeps a connection to the manager interface: lamp changes wake the scan, requests to mark a message
//! heard are carried out one after another.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

use super::{
    AmiConfig, AmiSecret, AsteriskConfig, Health, MarkError, MarkHeard, Marked, Shared, VoicemailBox, lamp,
    session::{AmiError, Session},
    spool::Scanner,
};

/// A connection without news is asked this often, and so found out when it is dead.
const ASK_EVERY: Duration = Duration::from_secs(30);
const FIRST_PAUSE_MS: u64 = 500;
const LONGEST_PAUSE_MS: u64 = 30_000;

pub async fn listen(
    config: &AsteriskConfig,
    secret: &AmiSecret,
    mut heard: mpsc::Receiver<MarkHeard>,
    shared: &Shared,
) {
    let Some(ami) = &config.ami else {
        shared.status.send_modify(|status| status.ami = Health::NotConfigured);
        while let Some(request) = heard.recv().await {
            // Whoever asked may have stopped waiting.
            let _ = request.answer.send(Err(MarkError::NotConfigured));
        }
        return std::future::pending().await;
    };
    let mut pause_ms = FIRST_PAUSE_MS;
    loop {
        let began = Instant::now();
        let error = match connect(ami, secret, &mut heard).await {
            Ok(session) => serve(session, config, &mut heard, shared).await,
            Err(error) => error,
        };
        shared.status.send_modify(|status| status.ami = Health::Bad(error.to_string()));
        if began.elapsed() > ASK_EVERY {
            pause_ms = FIRST_PAUSE_MS;
        }
        let until = Instant::now() + jittered(pause_ms);
        pause_ms = (pause_ms * 2).min(LONGEST_PAUSE_MS);
        refuse_while(sleep_until(until), &mut heard).await;
    }
}

async fn connect(
    ami: &AmiConfig,
    secret: &AmiSecret,
    heard: &mut mpsc::Receiver<MarkHeard>,
) -> Result<Session, AmiError> {
    refuse_while(Session::open(ami, secret), heard).await
}

/// Waits while answering every request at once: whoever asked tries again by its own plan.
async fn refuse_while<T>(wait: impl Future<Output = T>, heard: &mut mpsc::Receiver<MarkHeard>) -> T {
    let mut wait = std::pin::pin!(wait);
    loop {
        tokio::select! {
            done = &mut wait => return done,
            Some(request) = heard.recv() => {
                let _ = request.answer.send(Err(MarkError::Unreachable));
            }
        }
    }
}

/// Uses one connection until it breaks.
async fn serve(
    mut session: Session,
    config: &AsteriskConfig,
    heard: &mut mpsc::Receiver<MarkHeard>,
    shared: &Shared,
) -> AmiError {
    if let Err(error) = ask_boxes(&mut session, shared).await {
        return error;
    }
    shared.status.send_modify(|status| status.ami = Health::Good);
    // The lamp may have changed while nobody listened.
    shared.wake.notify_one();
    loop {
        let ask_at = Instant::now() + ASK_EVERY;
        tokio::select! {
            event = session.next_event() => match event {
                Ok(event) if event.is_event("MessageWaiting") => shared.wake.notify_one(),
                Ok(_) => {}
                Err(error) => return error,
            },
            Some(request) = heard.recv() => {
                let marked = mark(&mut session, config, &request, shared).await;
                let (answer, broken) = match marked {
                    Err(MarkError::Ami(error)) if error.ends_session() => (Err(MarkError::Unreachable), Some(error)),
                    other => (other, None),
                };
                let _ = request.answer.send(answer);
                if let Some(error) = broken {
                    return error;
                }
            }
            () = sleep_until(ask_at) => {
                if let Err(error) = ask_boxes(&mut session, shared).await {
                    return error;
                }
            }
        }
    }
}

/// What the PBX says about the mailboxes' limits and counts.
async fn ask_boxes(session: &mut Session, shared: &Shared) -> Result<(), AmiError> {
    let users = lamp::users(session).await?;
    shared.status.send_modify(|status| {
        for known in &mut status.boxes {
            let user = users.iter().find(|user| user.mailbox == known.mailbox);
            known.unheard_at_pbx = user.map(|user| user.unheard);
            known.limit = user.and_then(|user| user.limit).unwrap_or(known.limit);
        }
    });
    Ok(())
}

async fn mark(
    session: &mut Session,
    config: &AsteriskConfig,
    request: &MarkHeard,
    shared: &Shared,
) -> Result<Marked, MarkError> {
    let mailbox = config.boxes.iter().find(|mailbox| mailbox.holds(&request.item)).ok_or(MarkError::UnknownBox)?;
    let ours = (mailbox.clone(), request.item.msg_id.clone());
    let Some(msg_id) = asterisk_name(session, config, mailbox, &request.item.msg_id).await? else {
        return Ok(Marked::Gone);
    };
    // Before the move, since the spool tells of it sooner than the answer comes.
    let added = shared.ours().insert(ours.clone());
    let marked = lamp::mark_heard(session, mailbox, &msg_id).await;
    if !matches!(marked, Ok(Marked::Moved)) {
        if added {
            shared.ours().remove(&ours);
        }
        return marked;
    }
    shared.status.send_modify(|status| {
        for known in status.boxes.iter_mut().filter(|known| known.mailbox == *mailbox) {
            known.unheard_at_pbx = None;
        }
    });
    marked
}

/// Asterisk's msg_id for the name that the store has: the same, or for a message that came without one the id that it
/// has been given since.
async fn asterisk_name(
    session: &mut Session,
    config: &AsteriskConfig,
    mailbox: &VoicemailBox,
    stored: &str,
) -> Result<Option<String>, AmiError> {
    if !stored.starts_with("txt-") {
        return Ok(Some(stored.to_owned()));
    }
    lamp::summary(session, mailbox).await?;
    let mut scanner = Scanner::new(&config.spool, std::slice::from_ref(mailbox));
    let snapshot = spawn_blocking(move || scanner.scan()).await.expect("a scan does not panic");
    let found = snapshot.found.into_iter().find(|found| found.id.fallback_name() == stored);
    Ok(found.and_then(|found| found.id.given().map(str::to_owned)))
}

/// Somewhere between half and all of it, so that several programs do not knock in step after a restart of the PBX.
fn jittered(pause_ms: u64) -> Duration {
    let mut random = [0; 2];
    // Without randomness the pause is just not jittered.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random);
    let part = u64::from(u16::from_le_bytes(random)) * pause_ms / 2 / u64::from(u16::MAX);
    Duration::from_millis(pause_ms / 2 + part)
}
