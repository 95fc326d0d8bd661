//! Objects of Google Cloud Storage, read ahead by tasks of their own.

use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::gcp::GoogleCloudStorage;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::{self, Access};
use super::trials::{Failure, Kind, Trials};
use super::{Entry, Input};
use crate::data::Error;

pub(super) const SCHEME: &str = "gs://";

/// Bytes of an object that are read before they are wanted, at most.
pub(super) const AHEAD: usize = 4 << 20;

/// The threads that talk to buckets.
static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    // Another one may have been chosen by whoever uses this as a library.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("bucket")
        .enable_all()
        .build()
});

fn runtime(place: &str) -> Result<&'static Runtime, Error> {
    RUNTIME.as_ref().map_err(|cause| Error::Read {
        file: place.into(),
        cause: io::Error::new(cause.kind(), cause.to_string()),
    })
}

/// A bucket, with the client that asks it.
#[derive(Debug)]
pub(super) struct Bucket {
    name: String,
    access: Access,
    client: Mutex<Option<Client>>,
}

#[derive(Debug, Clone)]
struct Client {
    store: Arc<GoogleCloudStorage>,
    /// Why it shows no credentials, if it does not.
    anonymous: Option<String>,
}

impl Bucket {
    pub(super) fn new(name: &str, access: Access) -> Self {
        Bucket {
            name: name.into(),
            access,
            client: Mutex::new(None),
        }
    }

    fn held(&self) -> Option<Client> {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        client.clone()
    }

    async fn client(&self) -> Result<Client, Failure> {
        if let Some(client) = self.held() {
            return Ok(client);
        }
        let (store, anonymous) = self.patiently(4, self.access.connect(&self.name)).await??;
        if let Some(why) = &anonymous {
            tracing::info!("gs://{} is asked without credentials ({why})", self.name);
        }
        let client = Client {
            store: Arc::new(store),
            anonymous,
        };
        let mut held = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(held.get_or_insert(client).clone())
    }

    /// Waits for an answer, `times` as long as a connection may be silent.
    async fn patiently<T>(
        &self,
        times: u32,
        answer: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let limit = self.access.patience * times;
        let silence = |_| Failure::passing(format!("nothing came for {limit:?}"));
        tokio::time::timeout(limit, answer).await.map_err(silence)
    }

    /// Forgets the client whose token was not accepted, unless another one is there already.
    fn forget(&self, used: &Client) {
        let mut held = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if held
            .as_ref()
            .is_some_and(|now| Arc::ptr_eq(&now.store, &used.store))
        {
            *held = None;
        }
    }

    /// Waits before the next attempt, or gives up.
    async fn again(&self, trials: &mut Trials<'_>, failure: Failure, at: u64) -> Result<(), Error> {
        let client = self.held();
        let unauthenticated = failure.kind == Kind::Unauthenticated;
        let anonymous = client.as_ref().and_then(|client| client.anonymous.clone());
        let pause = trials.failed(failure, at, anonymous)?;
        if unauthenticated && let Some(client) = client {
            self.forget(&client);
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// A bucket and the name of an object or folder in it.
#[derive(Debug, Clone)]
pub(super) struct Address {
    bucket: Arc<Bucket>,
    key: Key,
}

/// What a path means, if it means a bucket.
pub(super) fn address(path: &Path) -> Result<Option<Address>, Error> {
    if !super::is_remote(path) {
        return Ok(None);
    }
    let bad = |cause: String| unusable(path, cause);
    let text = path.to_str().ok_or_else(|| bad("it is not UTF-8".into()))?;
    let rest = text.strip_prefix(SCHEME).unwrap_or(text);
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(bad("it names no bucket".into()));
    }
    // As `join` does with local paths, two slashes are one.
    let parts: Vec<&str> = key.split('/').filter(|part| !part.is_empty()).collect();
    Ok(Some(Address {
        bucket: access::bucket(bucket),
        key: Key::parse(parts.join("/")).map_err(|error| bad(error.to_string()))?,
    }))
}

/// What the path of an object means.
pub(super) fn object(path: &Path) -> Result<Address, Error> {
    address(path)?.ok_or_else(|| unusable(path, "it names no bucket".into()))
}

fn unusable(path: &Path, cause: String) -> Error {
    Error::Bucket {
        action: "use",
        place: path.display().to_string(),
        cause,
        attempts: "so that it is no place in a bucket".into(),
        remedy: "write gs://BUCKET/NAME".into(),
    }
}

impl Address {
    pub(super) fn place(&self) -> String {
        format!("{SCHEME}{}/{}", self.bucket.name, self.key)
    }

    pub(super) fn bucket_name(&self) -> &str {
        &self.bucket.name
    }

    /// Why the bucket is asked without credentials, if it is.
    pub(super) fn anonymous(&self) -> Result<Option<String>, Error> {
        runtime(&self.place())?.block_on(async {
            let mut trials = self.trials("ask for");
            loop {
                match self.bucket.client().await {
                    Ok(client) => return Ok(client.anonymous),
                    Err(failure) => self.bucket.again(&mut trials, failure, 0).await?,
                }
            }
        })
    }

    fn trials(&self, action: &'static str) -> Trials<'_> {
        Trials::new(&self.bucket.access, action, self.place())
    }

    /// What lies directly below.
    pub(super) fn entries(&self) -> Result<Vec<Entry>, Error> {
        runtime(&self.place())?.block_on(async {
            let mut trials = self.trials("list");
            loop {
                match self.list().await {
                    Ok(found) => return Ok(found),
                    Err(failure) => self.bucket.again(&mut trials, failure, 0).await?,
                }
            }
        })
    }

    async fn list(&self) -> Result<Vec<Entry>, Failure> {
        let client = self.bucket.client().await?;
        // Of several pages.
        let listing = client.store.list_with_delimiter(Some(&self.key));
        let found = self.bucket.patiently(10, listing).await??;
        let name = |key: &Key| key.filename().unwrap_or_default().to_string();
        let folders = found.common_prefixes.iter().map(|prefix| Entry {
            name: name(prefix),
            size: None,
            odd: None,
        });
        // The console marks a folder with an empty object `folder/`, which the client calls by the folder's own name.
        let marker = |object: &&object_store::ObjectMeta| object.location == self.key;
        let objects = found.objects.iter().filter(|object| !marker(object));
        let objects = objects.map(|object| Entry {
            name: name(&object.location),
            size: Some(object.size),
            odd: None,
        });
        Ok(folders.chain(objects).collect())
    }

    /// The names of all objects below, without that of the folder.
    pub(super) fn below(&self) -> Result<Vec<String>, Error> {
        runtime(&self.place())?.block_on(async {
            let mut trials = self.trials("list");
            loop {
                match self.list_below().await {
                    Ok(found) => return Ok(found),
                    Err(failure) => self.bucket.again(&mut trials, failure, 0).await?,
                }
            }
        })
    }

    async fn list_below(&self) -> Result<Vec<String>, Failure> {
        let client = self.bucket.client().await?;
        let mut pages = client.store.list(Some(&self.key));
        let mut found = Vec::new();
        while let Some(object) = self.bucket.patiently(2, pages.next()).await? {
            let parts = object?.location.prefix_match(&self.key).map(|parts| {
                let parts: Vec<_> = parts.map(|part| part.as_ref().to_string()).collect();
                parts.join("/")
            });
            // The console's mark of a folder has no name within it.
            found.extend(parts.filter(|name| !name.is_empty()));
        }
        Ok(found)
    }

    pub(super) fn exists(&self) -> Result<bool, Error> {
        // The bucket itself is no object.
        if self.key.as_ref().is_empty() {
            return Ok(false);
        }
        runtime(&self.place())?.block_on(async {
            let mut trials = self.trials("look for");
            loop {
                match self.head().await {
                    Ok(()) => return Ok(true),
                    Err(failure) if failure.kind == Kind::Missing => return Ok(false),
                    Err(failure) => self.bucket.again(&mut trials, failure, 0).await?,
                }
            }
        })
    }

    async fn head(&self) -> Result<(), Failure> {
        let client = self.bucket.client().await?;
        self.bucket
            .patiently(1, client.store.head(&self.key))
            .await??;
        Ok(())
    }

    /// Deletes the object, if it is there.
    pub(super) fn remove(&self) -> Result<(), Error> {
        runtime(&self.place())?.block_on(async {
            let mut trials = self.trials("delete");
            loop {
                match self.delete().await {
                    Ok(()) => return Ok(()),
                    // Perhaps by an attempt whose answer was lost.
                    Err(failure) if failure.kind == Kind::Missing => return Ok(()),
                    Err(failure) => self.bucket.again(&mut trials, failure, 0).await?,
                }
            }
        })
    }

    async fn delete(&self) -> Result<(), Failure> {
        let client = self.bucket.client().await?;
        self.bucket
            .patiently(1, client.store.delete(&self.key))
            .await??;
        Ok(())
    }

    /// Writes an object, which appears whole or not at all.
    pub(super) fn write(&self, bytes: Bytes) -> Result<(), Error> {
        // At least a mebibyte a second.
        let times = 2 + (bytes.len() as u64 >> 20) / self.bucket.access.patience.as_secs().max(1);
        let payload = PutPayload::from(bytes);
        runtime(&self.place())?.block_on(async {
            let mut trials = self.trials("write");
            loop {
                match self.put(payload.clone(), times as u32).await {
                    Ok(()) => return Ok(()),
                    Err(failure) => self.bucket.again(&mut trials, failure, 0).await?,
                }
            }
        })
    }

    async fn put(&self, payload: PutPayload, times: u32) -> Result<(), Failure> {
        let client = self.bucket.client().await?;
        let written = client.store.put(&self.key, payload);
        self.bucket.patiently(times, written).await??;
        Ok(())
    }

    /// The whole object.
    pub(super) fn read(&self) -> Result<Vec<u8>, Error> {
        let mut whole = Sink::Whole(Vec::new());
        let progress = Progress {
            at: 0,
            end: None,
            version: None,
            expected: None,
        };
        runtime(&self.place())?.block_on(self.fetch(progress, &mut whole))?;
        match whole {
            Sink::Whole(bytes) => Ok(bytes),
            Sink::Ahead { .. } => Ok(Vec::new()),
        }
    }

    /// Begins to read the object, at first only so many bytes of it; `size`, where it is known already, must be its size.
    pub(super) fn open(self, size: Option<u64>, most: Option<u64>) -> Result<Ahead, Error> {
        let progress = Progress {
            at: 0,
            end: most,
            version: None,
            expected: size,
        };
        let (parts, room) = self.clone().begin(progress)?;
        Ok(Ahead {
            address: self,
            parts,
            room,
            part: None,
            version: None,
            at: 0,
            end: most,
            skipped: 0,
        })
    }

    /// Reads ahead from where `progress` stands.
    fn begin(
        self,
        progress: Progress,
    ) -> Result<(UnboundedReceiver<Received>, Arc<Semaphore>), Error> {
        let (sender, parts) = unbounded_channel();
        let room = Arc::new(Semaphore::new(AHEAD));
        let mut sink = Sink::Ahead {
            sender,
            room: room.clone(),
        };
        runtime(&self.place())?.spawn(async move {
            if let Err(error) = self.fetch(progress, &mut sink).await {
                sink.fail(error);
            }
        });
        Ok((parts, room))
    }

    /// Gives the bytes of the object to `sink`, over as many connections as that takes.
    async fn fetch(&self, mut progress: Progress, sink: &mut Sink) -> Result<(), Error> {
        let mut trials = self.trials("read");
        loop {
            match self.attempt(&mut progress, sink).await {
                Ok(()) => return Ok(()),
                Err(failure) => self.bucket.again(&mut trials, failure, progress.at).await?,
            }
        }
    }

    async fn attempt(&self, progress: &mut Progress, sink: &mut Sink) -> Result<(), Failure> {
        let size = progress.version.as_ref().map(|version| version.0);
        if size == Some(progress.at) || progress.end == Some(progress.at) {
            return Ok(());
        }
        let client = self.bucket.client().await?;
        let options = GetOptions {
            range: match (progress.at, progress.end) {
                (0, None) => None,
                (at, None) => Some(GetRange::Offset(at)),
                (at, Some(end)) => Some(GetRange::Bounded(at..end)),
            },
            ..GetOptions::default()
        };
        let answer = client.store.get_opts(&self.key, options);
        let found = self.bucket.patiently(1, answer).await??;
        let meta = &found.meta;
        let version = (meta.size, meta.e_tag.clone(), meta.version.clone());
        match &progress.version {
            Some(before) if *before != version => {
                return Err(Failure::lasting("it was replaced while it was read"));
            }
            Some(_) => {}
            None => {
                if let Some(expected) = progress.expected.filter(|&size| size != meta.size) {
                    return Err(Failure::passing(format!(
                        "it came with {} bytes, {expected} were listed",
                        meta.size
                    )));
                }
                if !sink.begins(&version) {
                    return Ok(());
                }
                progress.version = Some(version);
            }
        }
        let size = progress.end.map_or(meta.size, |end| end.min(meta.size));
        let mut body = found.into_stream();
        while progress.at < size {
            let next = self.bucket.patiently(1, body.next()).await?;
            let Some(bytes) = next.transpose()? else {
                let at = progress.at;
                return Err(Failure::passing(format!("it ended at byte {at} of {size}")));
            };
            progress.at += bytes.len() as u64;
            if progress.at > size {
                return Err(Failure::lasting(format!("more than its {size} bytes came")));
            }
            if !sink.take(bytes).await {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Size, tag and generation of an object.
type Version = (u64, Option<String>, Option<String>);

/// How far an object was read.
struct Progress {
    at: u64,
    /// Where to stop, if not at the object's end.
    end: Option<u64>,
    version: Option<Version>,
    /// The size that it was listed with.
    expected: Option<u64>,
}

/// Where bytes go.
enum Sink {
    Whole(Vec<u8>),
    Ahead {
        sender: UnboundedSender<Received>,
        room: Arc<Semaphore>,
    },
}

type Received = Result<Part, Error>;

/// What comes of an object.
enum Part {
    Begin(Version),
    /// Bytes, with the room that they take.
    Bytes(Bytes, OwnedSemaphorePermit),
}

impl Sink {
    /// False when nobody wants it any more, as below.
    fn begins(&mut self, version: &Version) -> bool {
        match self {
            Sink::Whole(bytes) => {
                // No more than a sane object has: what a server says is not memory yet.
                bytes.reserve(version.0.min(AHEAD as u64) as usize);
                true
            }
            Sink::Ahead { sender, .. } => sender.send(Ok(Part::Begin(version.clone()))).is_ok(),
        }
    }

    async fn take(&mut self, bytes: Bytes) -> bool {
        match self {
            Sink::Whole(all) => {
                all.extend_from_slice(&bytes);
                true
            }
            Sink::Ahead { sender, room } => {
                let wanted = bytes.len().min(AHEAD) as u32;
                let Ok(permit) = room.clone().acquire_many_owned(wanted).await else {
                    return false;
                };
                sender.send(Ok(Part::Bytes(bytes, permit))).is_ok()
            }
        }
    }

    fn fail(self, error: Error) {
        if let Sink::Ahead { sender, .. } = self {
            // Nobody listens any more, or the error is told.
            sender.send(Err(error)).ok();
        }
    }
}

/// An object being read.
pub(super) struct Ahead {
    address: Address,
    parts: UnboundedReceiver<Received>,
    room: Arc<Semaphore>,
    part: Option<(Bytes, OwnedSemaphorePermit)>,
    version: Option<Version>,
    /// Bytes taken out of the stream.
    at: u64,
    /// Where the stream ends, if not with the object.
    end: Option<u64>,
    /// Bytes to be stepped over before the next ones are given out.
    skipped: u64,
}

impl Ahead {
    /// The next part, if there is one.
    fn receive(&mut self) -> io::Result<()> {
        // Its room is free before one waits for the next.
        self.part = None;
        match self.parts.blocking_recv() {
            Some(Ok(Part::Begin(version))) => self.version = Some(version),
            Some(Ok(Part::Bytes(bytes, room))) => self.part = Some((bytes, room)),
            Some(Err(error)) => return Err(io::Error::other(error)),
            None => {
                let place = self.address.place();
                let ended = format!("the task that reads {place} broke down");
                return Err(io::Error::other(ended));
            }
        }
        Ok(())
    }

    /// Reads from another place on.
    fn go_to(&mut self, at: u64, end: Option<u64>) -> io::Result<()> {
        let progress = Progress {
            at,
            end,
            version: self.version.clone(),
            expected: None,
        };
        self.room.close();
        self.part = None;
        (self.parts, self.room) = self
            .address
            .clone()
            .begin(progress)
            .map_err(io::Error::other)?;
        (self.at, self.end) = (at, end);
        Ok(())
    }

    /// At most so many of the next bytes; none at the end.
    fn take(&mut self, most: usize) -> io::Result<Bytes> {
        while self.version.as_ref().map(|version| version.0) != Some(self.at) {
            if let Some((rest, _)) = &mut self.part
                && !rest.is_empty()
            {
                let taken = rest.split_to(most.min(rest.len()));
                self.at += taken.len() as u64;
                return Ok(taken);
            }
            if self.end == Some(self.at) {
                self.go_to(self.at, None)?;
            }
            self.receive()?;
        }
        Ok(Bytes::new())
    }
}

impl Read for Ahead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.skipped > 0 {
            let taken = self.take(self.skipped.min(AHEAD as u64) as usize)?;
            self.skipped = match taken.is_empty() {
                true => 0,
                false => self.skipped - taken.len() as u64,
            };
        }
        let taken = self.take(into.len())?;
        into[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

impl Input for Ahead {
    /// Does not wait. A few bytes are read all the same, since most of them are on their way, and another request costs more; to what is
    /// further away than is read ahead, another request goes.
    fn skip(&mut self, bytes: u64, then: Option<u64>) -> io::Result<()> {
        self.skipped = self.skipped.saturating_add(bytes);
        let to = self.at.saturating_add(self.skipped);
        let end = then.map(|then| to.saturating_add(then));
        // None ends with the object, which is last.
        let within = self
            .end
            .is_none_or(|last| end.is_some_and(|end| end <= last));
        if self.skipped <= AHEAD as u64 && within {
            return Ok(());
        }
        let size = self.size()?.unwrap_or(0);
        self.skipped = 0;
        self.go_to(to.min(size), end.filter(|&end| end < size))
    }

    fn size(&mut self) -> io::Result<Option<u64>> {
        while self.version.is_none() {
            self.receive()?;
        }
        Ok(self.version.as_ref().map(|version| version.0))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.room.close();
    }
}
