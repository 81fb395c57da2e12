//! Durable commits beside other stores: `cargo bench -p frontdesk-peers [-- SECONDS]`, one for each figure where nothing
//! is said.
//!
//! Every store commits the same records, about 3 kB of prose under eight keys, half of them in order and half like
//! HMACs, from 1, 8 and 32 threads, each of which waits until its commit is durable. All run in one process on one
//! disk, one after another in rounds that begin with another store each time; given is the median of the rounds.
//!
//! Frontdesk also seals each record and chains its journal; the others write plain text. It shares one sync among the
//! commits that wait; so that the comparison is not about that alone, each store that can stands here twice: as its
//! programmers would use it from several threads, and behind one thread that commits together what waits ("grouped").
//! The first rows are what the disk itself can do: one file, the same bytes, one `fdatasync`.

#[path = "../common/figures.rs"]
#[allow(dead_code, reason = "each benchmark takes what it needs")]
mod figures;
#[path = "../common/prose.rs"]
#[allow(dead_code, reason = "each benchmark takes what it needs")]
mod prose;

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use figures::{now, percentile, title};
use frontdesk::{
    clock::Clock,
    store::{Store, StoreError, keys::Kek, table::Table},
};
use prose::{Dice, Writer};

const WRITERS: [usize; 3] = [1, 8, 32];
const ROUNDS: usize = 5;
const VALUE_BYTES: [usize; 8] = [1_200, 900, 300, 200, 120, 100, 80, 60];
/// Commits that Frontdesk's writer makes durable together, at most.
const MAX_GROUP: usize = 64;
/// What each may keep in memory.
const CACHE_BYTES: usize = 64 << 20;

#[derive(Clone)]
struct Record {
    key: (u64, u64),
    value: String,
}

impl Record {
    fn key_bytes(&self) -> [u8; 16] {
        ((u128::from(self.key.0) << 64) | u128::from(self.key.1)).to_be_bytes()
    }
}

/// What one commit writes.
type Records = Arc<[Record]>;

fn records(n: u64, prose: &str) -> Records {
    let mut dice = Dice::new(n);
    let record = |(place, bytes): (usize, &usize)| {
        let (noise, start) = ((dice.roll(), dice.roll()), dice.below(prose.len() - bytes));
        let key = if place % 2 == 0 { (n, place as u64) } else { noise };
        Record { key, value: prose[start..start + bytes].to_owned() }
    };
    VALUE_BYTES.iter().enumerate().map(record).collect()
}

/// A store under test.
trait Peer: Send + Sync {
    /// Durable on return, all of it.
    fn commit(&self, group: &[Records]);
}

struct Frontdesk {
    store: Store,
    runtime: tokio::runtime::Runtime,
}

const TABLE: Table<(u64, u64), String> = Table::new(200, "bench", 1);

impl Frontdesk {
    fn open(place: &Path) -> Self {
        let store = Store::open(place, &Kek::random(), Clock::system()).expect("it opens");
        let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("the runtime starts");
        Self { store, runtime }
    }
}

impl Peer for Frontdesk {
    fn commit(&self, group: &[Records]) {
        for records in group {
            let records = records.clone();
            let written = self.store.write::<(), StoreError>(move |txn| {
                records.iter().try_for_each(|record| txn.put(&TABLE, &record.key, &record.value))
            });
            self.runtime.block_on(written).expect("it commits");
        }
    }
}

struct Sled {
    db: sled::Db,
    /// sled's own flush does not reach the disk (requirements/security.md).
    file: File,
}

impl Sled {
    fn open(place: &Path) -> Self {
        let config = sled::Config::new().path(place).cache_capacity(CACHE_BYTES as u64).flush_every_ms(None);
        let db = config.open().expect("it opens");
        Self { db, file: File::open(place.join("db")).expect("sled made it") }
    }
}

impl Peer for Sled {
    fn commit(&self, group: &[Records]) {
        let mut batch = sled::Batch::default();
        for record in group.iter().flat_map(|records| records.iter()) {
            batch.insert(&record.key_bytes(), record.value.as_bytes());
        }
        self.db.apply_batch(batch).expect("it commits");
        self.db.flush().expect("it flushes");
        self.file.sync_data().expect("it syncs");
    }
}

/// One connection behind a lock, which is faster than several that poll for SQLite's own.
struct Sqlite(Mutex<rusqlite::Connection>);

impl Sqlite {
    fn open(place: &Path) -> Self {
        let connection = rusqlite::Connection::open(place).expect("it opens");
        let settings = format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -{};
             CREATE TABLE records (key BLOB PRIMARY KEY, value TEXT) WITHOUT ROWID;",
            CACHE_BYTES >> 10
        );
        connection.execute_batch(&settings).expect("it has these settings");
        Self(Mutex::new(connection))
    }
}

impl Peer for Sqlite {
    fn commit(&self, group: &[Records]) {
        let mut connection = self.0.lock().expect("nobody panics while holding it");
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate);
        let transaction = transaction.expect("it begins");
        {
            let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO records VALUES (?, ?)").expect("SQL");
            for record in group.iter().flat_map(|records| records.iter()) {
                insert.execute((record.key_bytes(), &record.value)).expect("it inserts");
            }
        }
        transaction.commit().expect("it commits");
    }
}

struct Redb(redb::Database);

const REDB_TABLE: redb::TableDefinition<&[u8], &[u8]> = redb::TableDefinition::new("records");

impl Redb {
    fn open(place: &Path) -> Self {
        Self(redb::Builder::new().set_cache_size(CACHE_BYTES).create(place).expect("it opens"))
    }
}

impl Peer for Redb {
    fn commit(&self, group: &[Records]) {
        // Immediate durability is what it does unless told otherwise.
        let transaction = self.0.begin_write().expect("it begins");
        {
            let mut table = transaction.open_table(REDB_TABLE).expect("a table");
            for record in group.iter().flat_map(|records| records.iter()) {
                table.insert(record.key_bytes().as_slice(), record.value.as_bytes()).expect("it inserts");
            }
        }
        transaction.commit().expect("it commits");
    }
}

/// What the disk can do.
struct OneFile(Mutex<File>);

impl OneFile {
    fn open(place: &Path) -> Self {
        Self(Mutex::new(File::create(place).expect("it opens")))
    }
}

impl Peer for OneFile {
    fn commit(&self, group: &[Records]) {
        let mut bytes = Vec::new();
        for record in group.iter().flat_map(|records| records.iter()) {
            bytes.extend(record.key_bytes());
            bytes.extend_from_slice(record.value.as_bytes());
        }
        let mut file = self.0.lock().expect("nobody panics while holding it");
        file.write_all(&bytes).expect("it writes");
        file.sync_data().expect("it syncs");
    }
}

type Order = (Records, mpsc::SyncSender<()>);

/// A store behind one thread, which commits together what waits.
struct Grouped(mpsc::Sender<Order>);

impl Grouped {
    fn over(peer: impl Peer + 'static) -> Self {
        let (orders, waiting) = mpsc::channel::<Order>();
        #[expect(clippy::disallowed_methods, reason = "it ends with the last order")]
        thread::spawn(move || {
            while let Ok(first) = waiting.recv() {
                let mut group = vec![first.0];
                let mut answers = vec![first.1];
                while group.len() < MAX_GROUP
                    && let Ok((records, answer)) = waiting.try_recv()
                {
                    group.push(records);
                    answers.push(answer);
                }
                peer.commit(&group);
                answers.iter().for_each(|answer| answer.send(()).expect("somebody waits"));
            }
        });
        Self(orders)
    }
}

impl Peer for Grouped {
    fn commit(&self, group: &[Records]) {
        for records in group {
            let (done, wait) = mpsc::sync_channel(1);
            self.0.send((records.clone(), done)).expect("its thread runs");
            wait.recv().expect("its thread runs");
        }
    }
}

/// One store with so many writers.
#[derive(Default)]
struct Cell {
    /// Commits a second, round by round.
    rates: Vec<f64>,
    times: Vec<Duration>,
}

impl Cell {
    fn rate(&self) -> f64 {
        let mut sorted = self.rates.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }

    /// Median of each round's ratio, so that what slows a whole round slows both.
    fn beside(&self, other: &Self) -> f64 {
        let rates = self.rates.iter().zip(&other.rates).map(|(ours, theirs)| ours / theirs).collect();
        Self { rates, ..Self::default() }.rate()
    }
}

fn measure(peer: &dyn Peer, writers: usize, time: Duration, next: &AtomicU64, prose: &str, cell: &mut Cell) {
    let began = now();
    let times: Vec<Duration> = thread::scope(|scope| {
        let work = || {
            let mut times = Vec::new();
            while began.elapsed() < time {
                let group = [records(next.fetch_add(1, Ordering::Relaxed), prose)];
                let start = now();
                peer.commit(&group);
                times.push(start.elapsed());
            }
            times
        };
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("it commits")).collect()
    });
    cell.rates.push(times.len() as f64 / began.elapsed().as_secs_f64());
    cell.times.extend(times);
}

fn main() {
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(1.0);
    title("Durable commits of 3 kB in 8 records, a second");
    // Not where a system keeps files in memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let place = |name: &str| {
        let place = directory.path().join(name);
        fs::create_dir_all(place.parent().expect("it has one")).expect("a directory");
        place
    };
    let peers: Vec<(&str, Box<dyn Peer>)> = vec![
        ("one file", Box::new(OneFile::open(&place("file")))),
        ("one file, grouped", Box::new(Grouped::over(OneFile::open(&place("file-grouped"))))),
        ("Frontdesk", Box::new(Frontdesk::open(&place("frontdesk")))),
        ("sled", Box::new(Sled::open(&place("sled")))),
        ("sled, grouped", Box::new(Grouped::over(Sled::open(&place("sled-grouped"))))),
        ("SQLite", Box::new(Sqlite::open(&place("sqlite")))),
        ("SQLite, grouped", Box::new(Grouped::over(Sqlite::open(&place("sqlite-grouped"))))),
        ("redb", Box::new(Redb::open(&place("redb")))),
        ("redb, grouped", Box::new(Grouped::over(Redb::open(&place("redb-grouped"))))),
    ];
    let ours = peers.iter().position(|(name, _)| *name == "Frontdesk").expect("it is there");
    let prose = Writer::new(1).text(1 << 20);
    let next = AtomicU64::new(0);
    let mut cells: Vec<[Cell; WRITERS.len()]> = peers.iter().map(|_| Default::default()).collect();
    for round in 0..ROUNDS {
        for (column, writers) in WRITERS.into_iter().enumerate() {
            for turn in 0..peers.len() {
                let which = (turn + round) % peers.len();
                let time = Duration::from_secs_f64(seconds);
                measure(&*peers[which].1, writers, time, &next, &prose, &mut cells[which][column]);
            }
        }
    }

    print!("{:<20}", "");
    WRITERS.iter().for_each(|writers| print!("{:>38}", format!("{writers} writers ")));
    print!("\n{:<20}", "");
    WRITERS.iter().for_each(|_| print!("{:>9} {:>8} {:>8} {:>9} ", "a second", "p50 ms", "p99 ms", "Frontdesk"));
    println!();
    for (which, (name, _)) in peers.iter().enumerate() {
        print!("{name:<20}");
        for column in 0..WRITERS.len() {
            cells[which][column].times.sort_unstable();
            let cell = &cells[which][column];
            let [half, most] = [50, 99].map(|percent| percentile(&cell.times, percent).as_secs_f64() * 1e3);
            let beside = cells[ours][column].beside(cell);
            print!("{:>9.0} {half:>8.2} {most:>8.2} {:>9} ", cell.rate(), format!("{beside:.2}×"));
        }
        println!();
    }
    println!("\n\"Frontdesk\": its rate in times of this one's.");
}
