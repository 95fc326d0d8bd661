//! A key-value service over TCP: process 0 serves it, all processes use it. By it CUDA's plugin exchanges its topology and its
//! communicators' names, and the processes of a run compare what must be the same.
//!
//! A request is an operation, a key and a value, each with its length before it; an answer is a status and a value. A connection
//! serves one request at a time, so each waiting thread has a connection of its own. Whoever goes away leaves what it put.
//!
//! Members say again and again that they are alive, and hear who is not: who has not been heard of for as long as it said itself, or whose
//! connection broke (the system closes those of a process that is killed) and who did not come back soon.

use super::Error;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Neither keys nor values are larger.
const MOST_BYTES: u32 = 64 << 20;
/// How long a request may lie half sent.
const SILENCE: Duration = Duration::from_secs(60);
/// No client waits longer for a value.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Whose connection broke is lost if it is not heard of again within this.
const RETURN: Duration = Duration::from_secs(6);
/// Where no member was heard of for so long, the service itself stood still: each says every two seconds that it is alive.
const PAUSED: Duration = Duration::from_secs(10);
/// Pause between attempts to reach a service that is not there yet.
const PAUSE: Duration = Duration::from_millis(50);

const PUT: u8 = 1;
const GET: u8 = 2;
const TRY_GET: u8 = 3;
const BEAT: u8 = 4;
const LEAVE: u8 = 5;
const FOUND: u8 = 0;
const NOT_FOUND: u8 = 1;
const TAKEN: u8 = 2;

#[derive(Default)]
struct Shared {
    values: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    changed: Condvar,
    /// Until when each member must be heard of again; none of those that left.
    members: Mutex<HashMap<Vec<u8>, Option<Instant>>>,
    /// When anybody was heard of last.
    heard: Mutex<Option<Instant>>,
}

impl Shared {
    /// A thread that panicked while it held the map has left it whole: every change is one insertion.
    fn values(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Vec<u8>>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As of the values: every change is one insertion.
    fn members(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Option<Instant>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member says `now` that it is alive and promises to say so again within `patience`. Gives one that broke its promise; the first
    /// by name.
    fn beat(&self, member: &[u8], patience: Duration, now: Instant) -> Option<Vec<u8>> {
        let mut members = self.members();
        let heard = self
            .heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(now);
        if heard.is_some_and(|heard| now - heard > PAUSED) {
            // Nobody was heard, so it was this process that stood still; what the others said meanwhile is still unread.
            for until in members.values_mut().flatten() {
                *until = (*until).max(now + patience);
            }
        }
        match members.get_mut(member) {
            // A word that was on its way when it left.
            Some(None) => {}
            Some(until) => *until = Some(now + patience),
            None => {
                members.insert(member.into(), Some(now + patience));
            }
        }
        let lost = members
            .iter()
            .filter(|(_, until)| until.is_some_and(|until| until < now));
        lost.map(|(name, _)| name).min().cloned()
    }

    /// A member's connection broke.
    fn broke(&self, member: &[u8]) {
        let soon = Instant::now() + RETURN;
        if let Some(Some(until)) = self.members().get_mut(member) {
            *until = soon.min(*until);
        }
    }

    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> u8 {
        let mut values = self.values();
        match values.get(&key) {
            // Put again by someone who did not hear the answer.
            Some(there) if *there == value => FOUND,
            Some(_) => TAKEN,
            None => {
                values.insert(key, value);
                self.changed.notify_all();
                FOUND
            }
        }
    }

    fn get(&self, key: &[u8], patience: Duration) -> Option<Vec<u8>> {
        let until = Instant::now() + patience;
        let mut values = self.values();
        loop {
            if let Some(value) = values.get(key) {
                return Some(value.clone());
            }
            let left = until.checked_duration_since(Instant::now())?;
            values = self
                .changed
                .wait_timeout(values, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// The service. It ends with the process.
#[derive(Debug)]
pub struct Server {
    port: u16,
}

impl Server {
    /// Serves on `address`, such as `0.0.0.0:8482`; port 0 takes any.
    ///
    /// # Errors
    /// If the port is taken or not allowed.
    pub fn start(address: &str) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::Store {
            address: address.into(),
            what: "cannot be started",
            reason: error.to_string(),
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let shared = Arc::new(Shared::default());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || {
                    let mut member = None;
                    // A client that goes away, or talks nonsense, ends its own connection only.
                    if let Err(error) = serve(stream, &shared, &mut member) {
                        tracing::debug!("a client of the key-value service left: {error}");
                    }
                    if let Some(member) = member {
                        shared.broke(&member);
                    }
                });
            }
        });
        Ok(Server { port })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Serves a client until it goes away. `member` becomes who said on this connection that it is alive.
fn serve(mut stream: TcpStream, shared: &Shared, member: &mut Option<Vec<u8>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        stream.set_read_timeout(None)?;
        let mut operation = [0u8];
        if stream.read(&mut operation)? == 0 {
            return Ok(());
        }
        stream.set_read_timeout(Some(SILENCE))?;
        let key = read_bytes(&mut stream)?;
        let value = read_bytes(&mut stream)?;
        let (status, answer) = match operation[0] {
            PUT => (shared.put(key, value), Vec::new()),
            GET => {
                let patience = milliseconds(value)?;
                answer(shared.get(&key, patience))
            }
            TRY_GET => answer(shared.get(&key, Duration::ZERO)),
            BEAT => {
                let lost = shared.beat(&key, milliseconds(value)?, Instant::now());
                *member = Some(key);
                answer(lost)
            }
            LEAVE => {
                shared.members().insert(key, None);
                answer(None)
            }
            _ => return Err(nonsense()),
        };
        let mut bytes = vec![status];
        bytes.extend_from_slice(&(answer.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&answer);
        stream.write_all(&bytes)?;
    }
}

/// A time that a client gives, no longer than the longest.
fn milliseconds(value: Vec<u8>) -> io::Result<Duration> {
    let text: [u8; 8] = value.try_into().map_err(|_| nonsense())?;
    Ok(Duration::from_millis(u64::from_le_bytes(text)).min(LONGEST))
}

fn answer(value: Option<Vec<u8>>) -> (u8, Vec<u8>) {
    match value {
        Some(value) => (FOUND, value),
        None => (NOT_FOUND, Vec::new()),
    }
}

fn nonsense() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "it does not speak this service's language",
    )
}

fn read_bytes(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0u8; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MOST_BYTES {
        return Err(nonsense());
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A client of the service. Any number of threads may use it at once.
#[derive(Debug)]
pub struct Store {
    address: String,
    /// Connections that nobody uses now.
    idle: Mutex<Vec<TcpStream>>,
}

impl Store {
    /// Connects to the service at `HOST:PORT`; it need not be there yet.
    ///
    /// # Errors
    /// If it cannot be reached within `patience`.
    pub fn connect(address: &str, patience: Duration) -> Result<Self, Error> {
        let store = Store {
            address: address.into(),
            idle: Mutex::new(Vec::new()),
        };
        let until = Instant::now() + patience;
        loop {
            match store.open() {
                Ok(stream) => {
                    store.give_back(stream);
                    return Ok(store);
                }
                Err(error) if Instant::now() >= until => {
                    return Err(store.failed("cannot be reached", &error));
                }
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    fn open(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn give_back(&self, stream: TcpStream) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(stream);
    }

    fn failed(&self, what: &'static str, error: &io::Error) -> Error {
        Error::Store {
            address: self.address.clone(),
            what,
            reason: error.to_string(),
        }
    }

    fn ask(
        &self,
        operation: u8,
        key: &[u8],
        value: &[u8],
        patience: Duration,
    ) -> Result<(u8, Vec<u8>), Error> {
        let lost = |error: io::Error| Error::LostService {
            address: self.address.clone(),
            reason: error.to_string(),
        };
        let kept = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.pop()
        };
        let lay_idle = kept.is_some();
        let mut stream = match kept {
            Some(stream) => stream,
            None => self.open().map_err(lost)?,
        };
        let mut bytes = vec![operation];
        for part in [key, value] {
            let length = u32::try_from(part.len()).ok().filter(|&n| n <= MOST_BYTES);
            let length = length.ok_or_else(|| lost(nonsense()))?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(part);
        }
        let exchange = |stream: &mut TcpStream| -> io::Result<(u8, Vec<u8>)> {
            stream.write_all(&bytes)?;
            stream.set_read_timeout(Some(patience.min(LONGEST) + SILENCE))?;
            let mut status = [0u8];
            stream.read_exact(&mut status)?;
            Ok((status[0], read_bytes(stream)?))
        };
        let mut found = exchange(&mut stream);
        if lay_idle && found.is_err() {
            // It may have been closed on the way. Every request may be made twice: a value that is there already is found.
            stream = self.open().map_err(lost)?;
            found = exchange(&mut stream);
        }
        let found = found.map_err(lost)?;
        self.give_back(stream);
        Ok(found)
    }

    /// `HOST:PORT` of the service.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Puts a value under a key that nobody has taken.
    ///
    /// # Errors
    /// If another value is there already, or the service is gone.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        match self.ask(PUT, key, value, Duration::ZERO)? {
            (FOUND, _) => Ok(()),
            _ => Err(Error::Store {
                address: self.address.clone(),
                what: "has another value already",
                reason: String::from_utf8_lossy(key).into_owned(),
            }),
        }
    }

    /// The value of a key, waiting for it; none if it was not there in time.
    ///
    /// # Errors
    /// If the service is gone.
    pub fn get(&self, key: &[u8], patience: Duration) -> Result<Option<Vec<u8>>, Error> {
        Ok(found(self.ask(GET, key, &in_bytes(patience), patience)?))
    }

    /// The value of a key, if it is there now.
    ///
    /// # Errors
    /// If the service is gone.
    pub fn try_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(found(self.ask(TRY_GET, key, &[], Duration::ZERO)?))
    }

    /// Says that `member` is alive, and will say so again within `patience`; gives the name of a member that is lost.
    ///
    /// # Errors
    /// If the service is gone.
    pub fn beat(&self, member: &[u8], patience: Duration) -> Result<Option<Vec<u8>>, Error> {
        Ok(found(self.ask(
            BEAT,
            member,
            &in_bytes(patience),
            Duration::ZERO,
        )?))
    }

    /// Says that `member` goes and is not to be missed.
    ///
    /// # Errors
    /// If the service is gone.
    pub fn leave(&self, member: &[u8]) -> Result<(), Error> {
        self.ask(LEAVE, member, &[], Duration::ZERO).map(drop)
    }
}

fn in_bytes(patience: Duration) -> [u8; 8] {
    let milliseconds = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    milliseconds.to_le_bytes()
}

fn found((status, value): (u8, Vec<u8>)) -> Option<Vec<u8>> {
    (status == FOUND).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clock is the test's: two members speak every other second, then one of them alone, then nobody.
    #[test]
    fn a_service_that_stood_still_misses_nobody() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let minute = Duration::from_secs(60);
        let speaking = |until| {
            let shared = Shared::default();
            for second in (0..=until).step_by(2) {
                assert_eq!(shared.beat(b"0", minute, at(second)), None);
                if second <= 100 {
                    assert_eq!(shared.beat(b"1", minute, at(second)), None);
                }
            }
            shared
        };
        let lost = Some(b"1".to_vec());
        // Who says nothing for a minute while the other speaks is lost.
        assert_eq!(speaking(160).beat(b"0", minute, at(162)), lost);
        // For longer than that nobody was heard: what was said meanwhile is still to be read, and each has a minute again.
        let stood_still = speaking(100);
        let mut heard = (200..=260).step_by(2);
        assert!(heard.all(|second| stood_still.beat(b"0", minute, at(second)).is_none()));
        assert_eq!(stood_still.beat(b"0", minute, at(262)), lost);
    }
}
