use hpke::rand_core;

use super::*;
use crate::model::{intake::RawFormat, line::LineId};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

struct Site {
    dir: tempfile::TempDir,
    clock: Clock,
    key: IntakeKey,
}

impl Site {
    /// A store's directory after its first opening.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = IntakeKey::generate(NOW);
        Tray::open(dir.path()).unwrap().publish(7, &key).unwrap();
        Self { dir, clock: Clock::manual(NOW), key }
    }

    fn waiting(&self) -> Waiting {
        self.limited(Limits { leave_free_bytes: 0, ..Limits::default() }).unwrap()
    }

    fn limited(&self, limits: Limits) -> Result<Waiting, WaitingError> {
        Waiting::open(self.dir.path(), self.clock.clone(), limits)
    }

    fn tray(&self) -> Tray {
        Tray::open(self.dir.path()).unwrap()
    }

    fn open_item(&self, id: RawId) -> Result<Raw, WaitingError> {
        self.tray().open_item(id, |number| (number == 7).then(|| self.key.clone()))
    }

    fn path(&self, id: RawId) -> PathBuf {
        self.dir.path().join("intake").join(id.to_string())
    }
}

fn raw(number: u8, bytes: usize) -> Raw {
    Raw {
        source: SourceKey::Handed { line: LineId::parse("front-mail").unwrap(), sha256: [number; 32] },
        line: LineId::parse("front-mail").unwrap(),
        format: RawFormat::Rfc5322,
        received_at: NOW.plus_ms(-5),
        parts: vec![
            RawPart { name: "mail".into(), bytes: vec![number; bytes] },
            RawPart { name: "canary-name".into(), bytes: b"canary-bytes".to_vec() },
        ],
    }
}

fn same(left: &Raw, right: &Raw) -> bool {
    left.source == right.source
        && left.line == right.line
        && left.format == right.format
        && left.received_at == right.received_at
        && left.parts == right.parts
}

#[tokio::test]
async fn items_of_every_size_wait_and_come_back_as_they_were() {
    let site = Site::new();
    let waiting = site.waiting();
    for (number, bytes) in [0, 1, 900, 1024, 5_000, 300_000].into_iter().enumerate() {
        let stored = waiting.receive(raw(number as u8, bytes)).await.unwrap();
        assert!(!stored.was_known());
        assert!(same(&site.open_item(stored.id()).unwrap(), &raw(number as u8, bytes)), "{bytes} bytes");
    }
    assert_eq!((waiting.count(), site.waiting().count(), site.tray().list().unwrap().len()), (6, 6, 6));
}

/// What lies on the disk says neither what came nor how long it is.
#[tokio::test]
async fn a_waiting_item_shows_nothing() {
    let site = Site::new();
    let waiting = site.waiting();
    let (short, long) = (waiting.receive(raw(1, 3)).await.unwrap(), waiting.receive(raw(2, 600)).await.unwrap());
    let files = [short, long].map(|stored| fs::read(site.path(stored.id())).unwrap());
    assert_eq!(files[0].len(), files[1].len());
    assert_eq!(files[0].len(), HEADER_BYTES + KEY_BYTES + LEAST_BYTES + TAG_BYTES);
    for word in [&b"canary"[..], b"front-mail", b"\x01\x01\x01"] {
        assert!(!files[0].windows(word.len()).any(|found| found == word));
    }
}

#[tokio::test]
async fn a_changed_cut_or_renamed_item_does_not_open() {
    let site = Site::new();
    let waiting = site.waiting();
    let id = waiting.receive(raw(1, 3)).await.unwrap().id();
    let other = waiting.receive(raw(2, 3)).await.unwrap().id();
    let good = fs::read(site.path(id)).unwrap();
    let tray = site.tray();
    let refused = |bytes: &[u8], what: &str| {
        fs::write(site.path(id), bytes).unwrap();
        let opened = tray.open_item(id, |number| (number == 7).then(|| site.key.clone()));
        assert!(matches!(opened, Err(WaitingError::Unreadable { .. })), "{what}");
    };
    let last = good.len() - 1;
    for at in (0..HEADER_BYTES + KEY_BYTES + 40).chain((100..last).step_by(31)).chain(last - TAG_BYTES..=last) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        refused(&bad, &format!("flip at {at}"));
    }
    for cut in [0, 1, 8, HEADER_BYTES, HEADER_BYTES + KEY_BYTES, HEADER_BYTES + KEY_BYTES + 15, good.len() - 1] {
        refused(&good[..cut], &format!("cut at {cut}"));
    }
    refused(&[good.as_slice(), b"\0"].concat(), "longer");
    refused(&fs::read(site.path(other)).unwrap(), "another item's file");
    fs::write(site.path(id), &good).unwrap();
    assert!(site.open_item(id).is_ok());
    let stranger = IntakeKey::generate(NOW);
    assert!(site.tray().open_item(id, |_| Some(stranger)).is_err());
}

/// A modem that cannot delete shows the same text again and again; a day later a machine may mean it anew.
#[tokio::test]
async fn repeats_within_one_run_wait_once() {
    let site = Site::new();
    let waiting = site.waiting();
    let first = waiting.receive(raw(1, 3)).await.unwrap();
    site.clock.advance_ms(24 * 3600 * 1000 - 1);
    assert_eq!(waiting.receive(raw(1, 3)).await.unwrap(), Stored::new(first.id(), true));
    site.clock.advance_ms(1);
    assert!(!waiting.receive(raw(1, 3)).await.unwrap().was_known());
    assert_eq!(waiting.count(), 2);
}

#[tokio::test]
async fn too_much_is_refused_and_leaves_nothing_behind() {
    let site = Site::new();
    let words = async |limits: Limits| {
        let waiting = site.limited(limits).unwrap();
        let _ = waiting.receive(raw(1, 3)).await.unwrap();
        let error = waiting.receive(raw(2, 3)).await.unwrap_err();
        assert_eq!(waiting.count(), 1);
        let ids = site.tray().list().unwrap();
        assert_eq!(ids.len(), 1);
        fs::remove_file(site.path(ids[0])).unwrap();
        error.source.to_string()
    };
    let all = Limits { items: 10, bytes: 1 << 20, leave_free_bytes: 0 };
    assert_eq!(words(Limits { items: 1, ..all }).await, "1 items wait already: unseal the store");
    assert_eq!(words(Limits { bytes: 1_500, ..all }).await, "1 items wait already: unseal the store");
    let full = site.limited(Limits { leave_free_bytes: u64::MAX, ..all }).unwrap();
    let error = full.receive(raw(1, 3)).await.unwrap_err();
    assert!(error.source.to_string().contains("disk is nearly full"));
    assert_eq!(full.count(), 0);
}

#[tokio::test]
async fn nothing_is_said_to_be_old_while_sealed() {
    let waiting = Site::new().waiting();
    let key = raw(1, 0).source;
    let _ = waiting.receive(raw(1, 0)).await;
    assert!(waiting.unknown(vec![key.clone()]).await.unwrap() == vec![key.clone()]);
    assert!(waiting.pass_over(vec![key]).await.is_err());
}

/// An item that cannot be written is not acknowledged, and what was written of it goes away.
#[tokio::test]
async fn an_item_that_cannot_be_written_is_refused() {
    let site = Site::new();
    let waiting = site.waiting();
    fs::remove_dir(site.dir.path().join("intake")).unwrap();
    assert!(waiting.receive(raw(1, 3)).await.is_err());
    assert_eq!(waiting.count(), 0);
    fs::create_dir(site.dir.path().join("intake")).unwrap();
    assert!(!waiting.receive(raw(1, 3)).await.unwrap().was_known(), "what failed is not known");
}

#[test]
fn a_file_whose_writing_was_cut_off_goes() {
    let site = Site::new();
    let id = RawId::new(NOW, [1; 10]);
    let cut_off = site.path(id).with_extension("new");
    fs::write(&cut_off, b"FDWAIT01").unwrap();
    assert_eq!(site.waiting().count(), 0);
    assert!(!cut_off.exists());
}

/// One flipped bit in the public key would make items that nobody can ever open.
#[test]
fn a_damaged_public_key_is_refused() {
    let site = Site::new();
    let path = site.dir.path().join("intake.pub");
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        match site.limited(Limits::default()) {
            Err(WaitingError::DamagedKey { .. }) => {}
            Err(other) => panic!("{other}"),
            // White space between the fields may become other white space.
            Ok(waiting) => assert!((waiting.inner.number, &waiting.inner.public) == (7, &site.key.pair().1)),
        }
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(site.limited(Limits::default()), Err(WaitingError::NoKey { .. })));
}

/// Gives the bytes of a test vector where random ones are asked for.
struct Given(Vec<u8>);

impl rand_core::TryRng for Given {
    type Error = std::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(u32::from_be_bytes(self.0[..4].try_into().expect("a vector has more")))
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(u64::from_be_bytes(self.0[..8].try_into().expect("a vector has more")))
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.copy_from_slice(&self.0);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Given {}

/// RFC 9180 appendix A.2.1: base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, sequence number 0.
#[test]
fn the_cipher_is_the_standards() {
    let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
    let (info, aad) = (hex("4f6465206f6e2061204772656369616e2055726e"), hex("436f756e742d30"));
    let (_, public) = Kem::derive_keypair(&hex("1ac01f181fdf9f352797655161c58b75c656a6cc2716dcb66372da835542e1df"));
    assert_eq!(public.to_bytes().as_slice(), hex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a"));
    let mut sender = Given(hex("909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b"));
    let mut text = b"Beauty is truth, truth beauty".to_vec();
    let (key, tag) = hpke::single_shot_seal_inout_detached_with_rng::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeS::Base,
        &public,
        &info,
        InOutBuf::from(&mut text[..]),
        &aad,
        &mut sender,
    )
    .unwrap();
    assert_eq!(key.to_bytes().as_slice(), hex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"));
    let sealed = [text.as_slice(), &tag.to_bytes()].concat();
    let expected = "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28";
    assert_eq!(sealed, hex(expected));
}
