//! The open conversations, and resolved ones with failed sends, kept in memory for lists and counts: a few dozen bytes
//! each, built at start.
//!
//! The writer updates it at each commit, before whoever wrote gets the answer, so that a list never lags behind.

use std::{
    collections::{BinaryHeap, HashMap},
    sync::{PoisonError, RwLock},
};

use crate::{
    model::{
        category::{Categories, Category},
        conversation::Conversation,
        ids::{ContactId, ConversationId, StaffId},
        time::Timestamp,
    },
    store::{Records, Store, StoreError, engine::Direction, schema},
};

/// Which conversations a list shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Somebody waits for an answer; the longest wait first.
    NeedsAction,
    Mine,
    Unassigned,
    FailedSends,
    Resolved,
    /// What an exact look-up found.
    Contacts(Vec<ContactId>),
}

/// The place in a list after which the next page begins: the sort key and id of its last row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub at: Timestamp,
    pub id: ConversationId,
}

struct Row {
    is_open: bool,
    assignee: Option<StaffId>,
    strands: Vec<RowStrand>,
}

struct RowStrand {
    category: Category,
    waiting_since: Option<Timestamp>,
    failed: bool,
    latest: Timestamp,
}

impl Row {
    fn of(conversation: &Conversation) -> Self {
        let strands = conversation
            .strands
            .iter()
            .map(|strand| RowStrand {
                category: strand.category,
                waiting_since: strand.waiting_since,
                failed: strand.failed > 0,
                latest: strand.latest.at,
            })
            .collect();
        Self { is_open: conversation.is_open(), assignee: conversation.assignee, strands }
    }

    /// What somebody who sees these categories sees of it, if anything.
    fn sight(&self, sees: Categories) -> Option<Sight> {
        let mut visible = self.strands.iter().filter(|strand| sees.contains(strand.category));
        let first = visible.next()?;
        let first = Sight { latest: first.latest, waiting_since: first.waiting_since, failed: first.failed };
        Some(visible.fold(first, |sight, strand| Sight {
            latest: sight.latest.max(strand.latest),
            waiting_since: sight.waiting_since.into_iter().chain(strand.waiting_since).min(),
            failed: sight.failed || strand.failed,
        }))
    }

    /// The sort key of this row in a list, if it belongs there.
    fn place_in(&self, filter: &Filter, me: StaffId, sight: &Sight) -> Option<Timestamp> {
        match filter {
            // An answer that did not leave is everybody's business, also where it was to be the last word.
            Filter::FailedSends => sight.failed.then_some(sight.latest),
            _ if !self.is_open => None,
            Filter::NeedsAction => sight.waiting_since,
            Filter::Mine => (self.assignee == Some(me)).then_some(sight.latest),
            Filter::Unassigned => self.assignee.is_none().then_some(sight.latest),
            Filter::Resolved | Filter::Contacts(_) => None,
        }
    }
}

/// A row as far as one person may see it.
struct Sight {
    latest: Timestamp,
    waiting_since: Option<Timestamp>,
    failed: bool,
}

/// How many conversations each view holds for one person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub needs_action: usize,
    pub mine: usize,
    pub unassigned: usize,
    pub failed_sends: usize,
}

/// Whether a list other than that of resolved conversations may show it.
pub(super) fn is_on_board(conversation: &Conversation) -> bool {
    conversation.is_open() || conversation.has_failed_sends()
}

pub(super) struct Board {
    rows: RwLock<HashMap<ConversationId, Row>>,
}

impl Board {
    /// Reads it, and gives those conversations beside it whose record is damaged.
    pub(super) async fn load(store: &Store) -> Result<(Self, Vec<ConversationId>), StoreError> {
        let (rows, damaged) = store
            .read::<_, StoreError>(|reader| {
                let (mut rows, mut damaged) = (HashMap::new(), Vec::new());
                let mut after = None;
                loop {
                    let page = reader.list_each(&schema::OPEN, &(), Direction::Ascending, after.as_ref(), 1_000)?;
                    let Some((last, _)) = page.last() else { break };
                    after = Some(*last);
                    for (id, _) in page {
                        match reader.get(&schema::CONVERSATIONS, &id) {
                            Ok(Some(conversation)) => drop(rows.insert(id, Row::of(&conversation))),
                            Ok(None) => {}
                            Err(error) if error.is_of_one_record() => damaged.push(id),
                            Err(error) => return Err(error),
                        }
                    }
                }
                Ok((rows, damaged))
            })
            .await?;
        Ok((Self { rows: RwLock::new(rows) }, damaged))
    }

    pub(super) fn update(&self, conversation: &Conversation) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        if is_on_board(conversation) {
            rows.insert(conversation.id, Row::of(conversation));
        } else {
            rows.remove(&conversation.id);
        }
    }

    pub(super) fn counts(&self, me: StaffId, sees: Categories) -> Counts {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let mut counts = Counts::default();
        for row in rows.values() {
            let Some(sight) = row.sight(sees) else { continue };
            let is_in = |filter: &Filter| usize::from(row.place_in(filter, me, &sight).is_some());
            counts.needs_action += is_in(&Filter::NeedsAction);
            counts.mine += is_in(&Filter::Mine);
            counts.unassigned += is_in(&Filter::Unassigned);
            counts.failed_sends += is_in(&Filter::FailedSends);
        }
        counts
    }

    /// In how many conversations somebody waits for an answer, and since when the one who waits longest.
    pub(super) fn waiting(&self) -> (u64, Option<Timestamp>) {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let open = rows.values().filter(|row| row.is_open);
        let since = open.filter_map(|row| row.strands.iter().filter_map(|strand| strand.waiting_since).min());
        since.fold((0, None), |(count, oldest), at| {
            (count + 1, Some(oldest.map_or(at, |oldest: Timestamp| oldest.min(at))))
        })
    }

    /// In how many conversations a send failed, or may not have happened.
    pub(super) fn undecided(&self) -> u64 {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        rows.values().filter(|row| row.strands.iter().any(|strand| strand.failed)).count() as u64
    }

    /// A page of a list and whether more follows. Needs action goes by the longest wait, the others by the newest.
    pub(super) fn page(
        &self,
        filter: &Filter,
        me: StaffId,
        sees: Categories,
        after: Option<Cursor>,
        limit: usize,
    ) -> (Vec<Cursor>, bool) {
        let oldest_first = *filter == Filter::NeedsAction;
        let order = |cursor: &Cursor| if oldest_first { cursor.at.millis() } else { -cursor.at.millis() };
        let rank = |cursor: &Cursor| (order(cursor), cursor.id);
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let hits = rows
            .iter()
            .filter_map(|(id, row)| Some(Cursor { at: row.place_in(filter, me, &row.sight(sees)?)?, id: *id }))
            .filter(|cursor| after.is_none_or(|after| rank(cursor) > rank(&after)));
        // Only the page is kept, and one more: there may be many thousand rows.
        let mut best = BinaryHeap::with_capacity(limit + 2);
        for cursor in hits {
            let (order, id) = rank(&cursor);
            if best.len() <= limit || best.peek().is_some_and(|(last, last_id, _)| (order, id) < (*last, *last_id)) {
                best.push((order, id, cursor.at));
                if best.len() > limit + 1 {
                    best.pop();
                }
            }
        }
        let more = best.len() > limit;
        let best = best.into_sorted_vec();
        let hits = best.into_iter().take(limit).map(|(_, id, at)| Cursor { at, id }).collect();
        (hits, more)
    }
}
