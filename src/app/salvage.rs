//! `frontdesk salvage`: writes everything of a damaged store that can still be read into a new directory, as plain
//! files, and lists what cannot.
//!
//! The daemon goes on without what is damaged, so this is for when the daemon itself does not start any more, or for
//! moving to a new disk. It changes nothing in the store beyond what each start does.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    AppError,
    key::{self, Unlock},
    terminal,
};
use crate::{
    clock::Clock,
    config::{Config, ConfigError},
    inbox::Inbox,
    model::{
        audit::Action,
        ids::{ConversationId, MessageId, RawId},
        message::{Content, Message},
    },
    store::{
        Each, Records, Store, StoreError,
        engine::Direction,
        keyslots::KeyslotError,
        schema::{self, RawRecord},
        table::{Key, Table},
    },
};

/// Records that are read at once.
const PAGE: usize = 200;

#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Keyslots(#[from] KeyslotError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("nothing was typed")]
    NothingTyped(#[source] io::Error),
    #[error("there is no store in {state}: see [store] in the configuration")]
    NoStore { state: PathBuf, source: io::Error },
    #[error("{state} belongs to another user: run `runuser -u {owner} -- frontdesk salvage …`")]
    Foreign { state: PathBuf, owner: u32 },
    #[error("{path} exists: name a directory that does not, on a disk with room for everything")]
    Exists { path: PathBuf },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// What was written and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    pub records: u64,
    pub files: u64,
    pub unreadable: u64,
}

/// Opens the store as the daemon would and writes what can be read into `to`.
pub async fn run(config_path: &Path, to: &Path) -> Result<Salvaged, SalvageError> {
    let config = Config::load(config_path)?;
    let state = &config.store.directory;
    let owner = fs::metadata(state).map_err(|source| SalvageError::NoStore { state: state.clone(), source })?.uid();
    if owner != rustix::process::getuid().as_raw() {
        return Err(SalvageError::Foreign { state: state.clone(), owner });
    }
    if to.exists() {
        return Err(SalvageError::Exists { path: to.to_owned() });
    }
    let unlocked = match key::unlock(&config)? {
        Unlock::Open { unlocked, .. } => unlocked,
        Unlock::Sealed { keyslots, why } => {
            eprintln!("frontdesk: {why}");
            let typed = terminal::ask_secret("Passphrase or recovery key of this store");
            keyslots.unlock_with_words(&typed.map_err(SalvageError::NothingTyped)?)?
        }
    };
    let clock = Clock::system();
    let store = Store::open(state, &unlocked.kek, clock.clone())?;
    // Who takes content out is noted first. Where the store cannot even do that, its content still has to be saved.
    let noted = match Inbox::open(store.clone(), clock, config.practice()).await {
        Ok(inbox) => inbox.note_run(Action::Salvaged).await,
        Err(error) => Err(error),
    };
    if let Err(error) = noted {
        eprintln!("frontdesk: this cannot be noted in the audit trail ({error}); note it elsewhere");
    }
    let salvaged = Salvage::begin(store.clone(), to)?.everything().await?;
    store.close().await;
    Ok(salvaged)
}

struct Salvage {
    store: Store,
    to: PathBuf,
    unreadable: fs::File,
    done: Salvaged,
}

impl Salvage {
    fn begin(store: Store, to: &Path) -> Result<Self, SalvageError> {
        make_directory(to)?;
        let unreadable = create(&to.join("unreadable.txt"))?;
        Ok(Self { store, to: to.to_owned(), unreadable, done: Salvaged::default() })
    }

    async fn everything(mut self) -> Result<Salvaged, SalvageError> {
        for directory in ["raw", "files"] {
            make_directory(&self.to.join(directory))?;
        }
        self.table("contacts", &schema::CONTACTS, |_, _| Vec::new()).await?;
        self.table("conversations", &schema::CONVERSATIONS, |_, _| Vec::new()).await?;
        self.table("audit", &schema::AUDIT, |_, _| Vec::new()).await?;
        self.table("staff", &schema::STAFF, |_, _| Vec::new()).await?;
        let parts = |id: &RawId, raw: &RawRecord| {
            let parts = raw.parts.iter().map(|(_, content)| content).enumerate();
            parts.map(|(number, content)| (format!("raw/{id}-{number}"), content.clone())).collect()
        };
        self.table("raws", &schema::RAWS, parts).await?;
        let files = |(_, id): &(ConversationId, MessageId), message: &Message| {
            let files = message.contents().enumerate();
            files.map(|(number, content)| (format!("files/{id}-{number}"), content.clone())).collect()
        };
        self.table("messages", &schema::MESSAGES, files).await?;
        // Whoever was told that it is written may pull the disk out.
        let written = fs::File::open(&self.to).and_then(|directory| Ok(rustix::fs::syncfs(directory)?));
        written.map_err(|source| SalvageError::Write { path: self.to.clone(), source })?;
        Ok(self.done)
    }

    /// Writes a table as JSON, a record a line, and the files that its records have.
    async fn table<K, V>(
        &mut self,
        name: &str,
        table: &'static Table<K, V>,
        files: impl Fn(&K, &V) -> Vec<(String, Content)>,
    ) -> Result<(), SalvageError>
    where
        K: Key + Clone + Send + Sync + 'static,
        V: Serialize + DeserializeOwned + Send + 'static,
    {
        let path = self.to.join(format!("{name}.jsonl"));
        let mut file = io::BufWriter::new(create(&path)?);
        let write = |source| SalvageError::Write { path: path.clone(), source };
        let mut after: Option<K> = None;
        loop {
            let from = after.take();
            let page: Vec<Each<K, V>> = self
                .store
                .read::<_, StoreError>(move |reader| {
                    reader.list_each(table, &(), Direction::Ascending, from.as_ref(), PAGE)
                })
                .await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, value) in page {
                match value {
                    Ok(value) => {
                        serde_json::to_writer(&mut file, &value).map_err(|error| write(error.into()))?;
                        writeln!(file).map_err(write)?;
                        self.done.records += 1;
                        for (name, content) in files(&key, &value) {
                            self.content(&name, content).await?;
                        }
                    }
                    // On purpose.
                    Err(StoreError::Shredded { .. }) => {}
                    Err(error) => self.miss(&format!("{name} {}", hex_of(&key)), &error)?,
                }
            }
        }
        file.flush().map_err(write)
    }

    async fn content(&mut self, name: &str, content: Content) -> Result<(), SalvageError> {
        match self.store.content(content).await {
            Ok(bytes) => {
                let path = self.to.join(name);
                create(&path)?.write_all(&bytes).map_err(|source| SalvageError::Write { path, source })?;
                self.done.files += 1;
                Ok(())
            }
            Err(error) => self.miss(name, &error),
        }
    }

    fn miss(&mut self, what: &str, error: &StoreError) -> Result<(), SalvageError> {
        self.done.unreadable += 1;
        let path = self.to.join("unreadable.txt");
        writeln!(self.unreadable, "{what}: {error}").map_err(|source| SalvageError::Write { path, source })
    }
}

fn hex_of(key: &impl Key) -> String {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    data_encoding::HEXLOWER.encode(&bytes)
}

fn make_directory(path: &Path) -> Result<(), SalvageError> {
    let write = |source| SalvageError::Write { path: path.to_owned(), source };
    fs::DirBuilder::new().mode(0o700).create(path).map_err(write)
}

fn create(path: &Path) -> Result<fs::File, SalvageError> {
    let write = |source| SalvageError::Write { path: path.to_owned(), source };
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(write)
}
