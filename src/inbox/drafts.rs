//! Drafts and their data keys. A draft is content before there is a message, and every version of it that was saved is
//! still somewhere on the disk. So a draft has data keys of its own, and a message that is made of it notes them: who
//! shreds the message destroys them too.

use super::desk::Desk;
use crate::{
    model::ids::{ConversationId, MessageId, StaffId},
    store::{
        Readable, Records, StoreError,
        data_keys::DataKey,
        engine::Direction,
        schema::{self, Draft},
    },
};

/// Whose draft, in which conversation.
pub(super) type Place = (StaffId, ConversationId);

/// Keeps a draft; an empty one is removed.
pub(super) fn keep(desk: &mut Desk<'_, '_>, place: Place, draft: &Draft) -> Result<(), StoreError> {
    if is_empty(draft) {
        return forget(desk, place);
    }
    match desk.txn.data_key_of(&schema::DRAFTS, &place).readable()? {
        Some(key) => desk.txn.put_under(key, &schema::DRAFTS, &place, draft),
        None => keep_anew(desk, place, draft).map(|_| ()),
    }
}

/// A message was made of a part of a draft; `rest` is what is left of it.
pub(super) fn became(
    desk: &mut Desk<'_, '_>,
    place: Place,
    message: MessageId,
    rest: &Draft,
) -> Result<(), StoreError> {
    for key in keys(desk, place)? {
        desk.txn.put(&schema::DRAFTED_UNDER, &(message, key), &())?;
    }
    if is_empty(rest) { forget(desk, place) } else { keep_anew(desk, place, rest).map(|_| ()) }
}

/// A message that was taken back became a draft again.
pub(super) fn came_back(
    desk: &mut Desk<'_, '_>,
    place: Place,
    message: MessageId,
    draft: &Draft,
) -> Result<(), StoreError> {
    let key = keep_anew(desk, place, draft)?;
    desk.txn.put(&schema::DRAFTED_UNDER, &(message, key), &())
}

/// Removes a draft.
pub(super) fn forget(desk: &mut Desk<'_, '_>, place: Place) -> Result<(), StoreError> {
    for key in keys(desk, place)? {
        desk.txn.delete(&schema::DRAFT_KEYS, &(place, key));
    }
    desk.txn.delete(&schema::DRAFTS, &place);
    Ok(())
}

fn is_empty(draft: &Draft) -> bool {
    draft.text.trim().is_empty() && draft.note.trim().is_empty()
}

/// Every data key that this draft has been under.
fn keys(desk: &Desk<'_, '_>, place: Place) -> Result<Vec<DataKey>, StoreError> {
    let rows = desk.txn.list(&schema::DRAFT_KEYS, &place, Direction::Ascending, None, usize::MAX)?;
    Ok(rows.into_iter().map(|((_, key), ())| key).collect())
}

fn keep_anew(desk: &mut Desk<'_, '_>, place: Place, draft: &Draft) -> Result<DataKey, StoreError> {
    let key = desk.txn.new_data_key()?;
    desk.txn.put(&schema::DRAFT_KEYS, &(place, key), &())?;
    desk.txn.put_under(key, &schema::DRAFTS, &place, draft)?;
    Ok(key)
}
