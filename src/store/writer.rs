//! The one writer: runs use cases one after another and makes what waits together durable by one sync.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
};

use tokio::sync::{oneshot, watch};

use super::{
    Inner, StoreError,
    engine::{Batch, Change, EngineError, Sequence},
    records::{Reader, Txn},
};

/// Writes that one sync makes durable.
const MAX_GROUP: usize = 128;
const MAX_CONFLICTS: usize = 10;

pub(super) struct Request {
    /// Runs the use case; `false` means that it changed its mind and nothing is to be committed.
    pub run: Box<dyn FnMut(&mut Txn<'_>) -> bool + Send>,
    /// Empty once it has been answered.
    pub done: Option<oneshot::Sender<Result<Sequence, StoreError>>>,
}

impl Request {
    fn answer(&mut self, result: Result<Sequence, StoreError>) {
        if let Some(done) = self.done.take() {
            // Whoever asked may have gone away; what is durable stays.
            let _ = done.send(result);
        }
    }
}

pub(super) enum Order {
    Write(Request),
    /// Ends the writer after what was ordered before.
    Close(oneshot::Sender<()>),
}

pub(super) fn write_groups(
    inner: &Inner,
    orders: &mpsc::Receiver<Order>,
    committed: &watch::Sender<Sequence>,
) -> Option<oneshot::Sender<()>> {
    let mut closing = None;
    while closing.is_none()
        && let Ok(first) = orders.recv()
    {
        let mut group = Vec::new();
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Write(request) => group.push(request),
                Order::Close(closed) => closing = Some(closed),
            }
            next = if group.len() < MAX_GROUP && closing.is_none() { orders.try_recv().ok() } else { None };
        }
        if *inner.failed.borrow() {
            // What the disk holds is unknown until the journal is read again.
            group.iter_mut().for_each(|request| request.answer(Err(StoreError::Closed)));
            continue;
        }
        match run_group_with_room(inner, &mut group) {
            Err(StoreError::Engine(EngineError::Conflict)) => {
                for request in group.into_iter().filter(|request| request.done.is_some()) {
                    let mut alone = vec![request];
                    let mut result = Err(EngineError::Conflict.into());
                    for _ in 0..MAX_CONFLICTS {
                        result = run_group_with_room(inner, &mut alone);
                        if !matches!(result, Err(StoreError::Engine(EngineError::Conflict))) {
                            break;
                        }
                    }
                    answer(inner, alone, result, committed);
                }
            }
            result => answer(inner, group, result, committed),
        }
    }
    closing
}

fn answer(
    inner: &Inner,
    mut group: Vec<Request>,
    result: Result<Sequence, StoreError>,
    committed: &watch::Sender<Sequence>,
) {
    match result {
        Ok(sequence) => {
            committed.send_if_modified(|last| std::mem::replace(last, sequence) != sequence);
            group.iter_mut().for_each(|request| request.answer(Ok(sequence)));
        }
        Err(error) => {
            // A batch may stand in the journal but not in the index: only a replay makes them agree again. Where the
            // disk is full, or somebody came between, nothing has happened.
            if !matches!(error, StoreError::Engine(EngineError::Conflict | EngineError::NoSpace { .. })) {
                inner.failed.send_replace(true);
            }
            let no_space = match &error {
                StoreError::Engine(EngineError::NoSpace { path }) => Some(path.clone()),
                _ => None,
            };
            let text = error.to_string();
            let mut first = Some(error);
            for request in &mut group {
                let error = first.take().unwrap_or_else(|| match &no_space {
                    Some(path) => EngineError::NoSpace { path: path.clone() }.into(),
                    None => EngineError::Index { what: text.clone() }.into(),
                });
                request.answer(Err(error));
            }
        }
    }
}

/// Like [`run_group`]; where the journal has no room, and therefore nothing has happened, the reserve is given back first.
/// Whatever else lacks room may have been too late for that: the journal may hold the commit already.
fn run_group_with_room(inner: &Inner, group: &mut [Request]) -> Result<Sequence, StoreError> {
    match run_group(inner, group) {
        Err(StoreError::Engine(EngineError::NoSpace { .. })) if inner.space.release() => run_group(inner, group),
        result => result,
    }
}

/// Runs the use cases one after another and commits those that want it together. One that panics is answered here and
/// takes nobody with it.
fn run_group(inner: &Inner, group: &mut [Request]) -> Result<Sequence, StoreError> {
    let mut overlay = BTreeMap::new();
    let mut batches = Vec::new();
    let mut hooks = Vec::new();
    // Who was answered already, because of a panic in an earlier run, changes nothing any more.
    for request in group.iter_mut().filter(|request| request.done.is_some()) {
        let mut txn = Txn::new(Reader::new(inner), &overlay);
        // Nothing of a transaction outlives a panic: its changes and hooks are dropped with it.
        let Ok(wants_commit) = catch_unwind(AssertUnwindSafe(|| (request.run)(&mut txn))) else {
            request.answer(Err(StoreError::Panicked));
            continue;
        };
        if wants_commit && !txn.is_empty() {
            let preconditions = txn.preconditions();
            let (changes, after) = txn.finish();
            hooks.push(after);
            let list = changes.iter().map(|(key, value)| Change { key: key.clone(), value: value.clone() }).collect();
            batches.push(Batch { preconditions, changes: list });
            overlay.extend(changes);
        }
    }
    if batches.is_empty() {
        return Ok(inner.engine.last());
    }
    // sled 0.34 panics on some damage instead of giving an error.
    let committed = catch_unwind(AssertUnwindSafe(|| inner.engine.commit(&batches)))
        .unwrap_or_else(|_| Err(EngineError::Index { what: "the engine panicked".to_owned() }));
    // Also where it failed: it may stand in the journal and be seen.
    inner.opened.forget(overlay.keys());
    let last = committed?;
    let first = last + 1 - batches.len() as Sequence;
    for (place, hooks) in hooks.into_iter().enumerate() {
        for hook in hooks {
            if catch_unwind(AssertUnwindSafe(|| hook(first + place as Sequence))).is_err() {
                tracing::error!("what follows a commit panicked");
            }
        }
    }
    Ok(last)
}
