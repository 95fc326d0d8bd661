//! A small Google Cloud Storage on loopback, with the faults that a test wants.
#![allow(dead_code)] // each test binary uses its part

use simclr::data::store::{Access, mount};
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request that came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// `/BUCKET/KEY`, decoded.
    pub path: String,
    pub query: HashMap<String, String>,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    /// How many requests came before it.
    pub number: usize,
    /// How many of the same method and path came before it.
    pub again: usize,
}

/// What goes wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Another status.
    Status(u16),
    /// The answer comes later, in milliseconds.
    Delay(u64),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// Nothing more comes after so many bytes of the body, for three seconds.
    Stall(usize),
    /// The connection ends without an answer, and nothing is done.
    Reset,
    /// It is done, and the connection ends without an answer.
    Mute,
    /// The body is shorter by so many bytes, and so is what is said of it.
    Shorter(usize),
    /// The generation is another one, as if the object had been replaced.
    Replaced,
}

type Plan = dyn Fn(&Request) -> Fault + Send + Sync;

pub struct Gcs {
    /// `127.0.0.1:PORT`.
    pub host: String,
    shared: Arc<Shared>,
    cache: tempfile::TempDir,
}

struct Shared {
    root: PathBuf,
    plan: Box<Plan>,
    requests: Mutex<Vec<(Request, Fault)>>,
    seen: Mutex<HashMap<(String, String), usize>>,
    tokens: AtomicUsize,
}

impl Gcs {
    /// Serves `root/BUCKET/KEY`; `plan` says what goes wrong.
    pub fn start(root: &Path, plan: impl Fn(&Request) -> Fault + Send + Sync + 'static) -> Gcs {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            root: root.into(),
            plan: Box::new(plan),
            requests: Mutex::default(),
            seen: Mutex::default(),
            tokens: AtomicUsize::new(0),
        });
        let server = shared.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        Gcs {
            host,
            shared,
            cache: cache(),
        }
    }

    /// Where the program keeps things, apart from those of other tests.
    pub fn cache(&self) -> PathBuf {
        self.cache.path().join("simclr")
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.host)
    }

    /// What came, and what went wrong with it.
    pub fn requests(&self) -> Vec<(Request, Fault)> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Tokens given out.
    pub fn tokens(&self) -> usize {
        self.shared.tokens.load(Ordering::Relaxed)
    }
}

/// The service account of the machine that asks.
pub const ACCOUNT: &str = "runner@project.iam.gserviceaccount.com";
/// Keys of a page of a listing: few, so that there are several.
const PAGE: usize = 3;

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        body: body.into(),
    }
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            out.push(u8::from_str_radix(&text[at + 1..at + 3], 16).unwrap());
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out).unwrap()
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut input = BufReader::new(stream.try_clone().unwrap());
        let mut output = stream;
        while let Some(request) = self.receive(&mut input) {
            let fault = (self.plan)(&request);
            self.requests.lock().unwrap().push((request.clone(), fault));
            if fault == Fault::Reset {
                return;
            }
            if let Fault::Delay(milliseconds) = fault {
                std::thread::sleep(Duration::from_millis(milliseconds));
            }
            let answer = match fault {
                Fault::Status(status) => {
                    answer(status, format!("<Error>on purpose: {status}</Error>"))
                }
                _ => self.answer(&request, fault),
            };
            if self.send(&mut output, &request, answer, fault).is_none() {
                return;
            }
        }
    }

    fn receive(&self, input: &mut BufReader<TcpStream>) -> Option<Request> {
        let mut line = String::new();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next()?.to_string(), words.next()?.to_string());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            input.read_line(&mut line).ok()?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.insert(name.to_lowercase(), value.to_string()),
                None => break,
            };
        }
        let length = headers
            .get("content-length")
            .map_or(0, |n| n.parse().unwrap());
        let mut body = vec![0; length];
        input.read_exact(&mut body).ok()?;
        let path = decoded(path);
        let mut seen = self.seen.lock().unwrap();
        let number = seen.values().sum();
        let again = seen.entry((method.clone(), path.clone())).or_default();
        let before = *again;
        *again += 1;
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        Some(Request {
            query: pairs
                .map(|(key, value)| (key.into(), decoded(value)))
                .collect(),
            method,
            path,
            headers,
            body,
            number,
            again: before,
        })
    }

    fn answer(&self, request: &Request, fault: Fault) -> Answer {
        if request.path.ends_with("/service-accounts/default/token") {
            let token = self.tokens.fetch_add(1, Ordering::Relaxed);
            return answer(
                200,
                format!(
                    r#"{{"access_token": "token-{token}", "expires_in": 3600, "token_type": "Bearer"}}"#
                ),
            );
        }
        if request.path.ends_with("/service-accounts/default/email") {
            return answer(200, ACCOUNT);
        }
        let (bucket, key) = request.path[1..]
            .split_once('/')
            .unwrap_or((&request.path[1..], ""));
        let folder = self.root.join(bucket);
        if !folder.is_dir() {
            return answer(404, "<Error><Code>NoSuchBucket</Code></Error>");
        }
        if key.is_empty() {
            return self.list(&folder, &request.query);
        }
        let file = folder.join(key);
        match request.method.as_str() {
            "PUT" => {
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(&file, &request.body).unwrap();
                let mut done = answer(200, "");
                done.headers.push(("ETag", "\"written\"".into()));
                done
            }
            "DELETE" => match fs::remove_file(&file) {
                Ok(()) => answer(204, ""),
                Err(_) => answer(404, "<Error><Code>NoSuchKey</Code></Error>"),
            },
            _ => self.object(&file, request, fault),
        }
    }

    fn object(&self, file: &Path, request: &Request, fault: Fault) -> Answer {
        let Ok(mut bytes) = fs::read(file) else {
            return answer(404, "<Error><Code>NoSuchKey</Code></Error>");
        };
        if let Fault::Shorter(by) = fault {
            bytes.truncate(bytes.len().saturating_sub(by));
        }
        let size = bytes.len();
        let range = request.headers.get("range");
        let (status, body) = match range.and_then(|range| range.strip_prefix("bytes=")) {
            None => (200, bytes),
            Some(range) => {
                let (from, to) = range.split_once('-').unwrap();
                let from: usize = from.parse().unwrap();
                let to = to.parse().map_or(size, |to: usize| (to + 1).min(size));
                if from >= size {
                    return answer(416, "<Error><Code>InvalidRange</Code></Error>");
                }
                (206, bytes[from..to].to_vec())
            }
        };
        let mut found = answer(status, body);
        if let (206, Some(range)) = (status, range) {
            let from = range["bytes=".len()..].split('-').next().unwrap();
            let last = from.parse::<usize>().unwrap() + found.body.len() - 1;
            found
                .headers
                .push(("Content-Range", format!("bytes {from}-{last}/{size}")));
        }
        let generation = 1 + u32::from(fault == Fault::Replaced);
        found.headers.extend([
            ("ETag", format!("\"{size}-{generation}\"")),
            ("x-goog-generation", generation.to_string()),
            ("Last-Modified", "Thu, 26 Nov 2026 12:00:00 GMT".into()),
        ]);
        found
    }

    fn list(&self, folder: &Path, query: &HashMap<String, String>) -> Answer {
        let prefix = query.get("prefix").cloned().unwrap_or_default();
        let after = query.get("continuation-token").cloned().unwrap_or_default();
        let mut found: Vec<(String, Option<u64>)> = Vec::new();
        let mut folders = vec![prefix];
        while let Some(prefix) = folders.pop() {
            let entries = fs::read_dir(folder.join(&prefix));
            for entry in entries.into_iter().flatten().flatten() {
                let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
                let meta = fs::metadata(entry.path()).unwrap();
                match (meta.is_dir(), query.contains_key("delimiter")) {
                    (true, true) => found.push((format!("{name}/"), None)),
                    (true, false) => folders.push(format!("{name}/")),
                    (false, _) => found.push((name, Some(meta.len()))),
                }
            }
        }
        found.sort();
        found.retain(|(name, _)| *name > after);
        let more = found.len() > PAGE;
        found.truncate(PAGE);
        let mut text = String::from("<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>");
        if more {
            let last = &found[PAGE - 1].0;
            text += &format!("<NextContinuationToken>{last}</NextContinuationToken>");
        }
        for (name, size) in found {
            text += &match size {
                Some(size) => format!(
                    "<Contents><Key>{name}</Key><Size>{size}</Size><ETag>\"{size}-1\"</ETag>\
                     <LastModified>2026-11-26T12:00:00.000Z</LastModified></Contents>"
                ),
                None => format!("<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>"),
            };
        }
        answer(200, text + "</ListBucketResult>")
    }

    /// None when the connection is to be closed.
    fn send(
        &self,
        output: &mut TcpStream,
        request: &Request,
        answer: Answer,
        fault: Fault,
    ) -> Option<()> {
        let mut head = format!("HTTP/1.1 {} on purpose\r\n", answer.status);
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", answer.body.len());
        if fault == Fault::Mute {
            return None;
        }
        output.write_all(head.as_bytes()).ok()?;
        if request.method == "HEAD" {
            return Some(());
        }
        match fault {
            Fault::Cut(at) if at < answer.body.len() => {
                output.write_all(&answer.body[..at]).ok()?;
                None
            }
            Fault::Stall(at) if at < answer.body.len() => {
                output.write_all(&answer.body[..at]).ok()?;
                std::thread::sleep(Duration::from_secs(3));
                None
            }
            _ => output.write_all(&answer.body).ok(),
        }
    }
}

/// Reads `gs://bucket` from the server, in this process, without waiting long: where a test has its sets.
pub fn reach(bucket: &str, server: &Gcs, attempts: u32) -> PathBuf {
    mount(
        bucket,
        Access {
            endpoint: Some(server.endpoint()),
            anonymous: true,
            attempts,
            patience: Duration::from_millis(500),
            pause: Duration::from_millis(1),
        },
    );
    PathBuf::from(format!("gs://{bucket}/sets"))
}

/// A cache of one's own, with the plugin that is there.
fn cache() -> tempfile::TempDir {
    let own = tempfile::tempdir().unwrap();
    let folder = own.path().join("simclr");
    fs::create_dir(&folder).unwrap();
    if let Some(usual) = simclr::places::cache_folder() {
        let plugins = usual.join("plugins");
        fs::create_dir_all(&plugins).unwrap();
        std::os::unix::fs::symlink(plugins, folder.join("plugins")).unwrap();
    }
    own
}

/// The program, which finds the server by the environment alone, and no login.
pub fn program(server: &Gcs, arguments: &[&str]) -> Command {
    let mut command = crate::binary::simclr();
    command
        .args(arguments)
        .env("STORAGE_EMULATOR_HOST", &server.host)
        .env("SIMCLR_GS_ATTEMPTS", "4")
        .env_remove("GOOGLE_APPLICATION_CREDENTIALS")
        .env("HOME", "/nonexistent")
        .env("XDG_CACHE_HOME", server.cache.path())
        .env("NO_PROXY", "127.0.0.1");
    command
}

pub fn succeeded(output: Output) -> String {
    let text = crate::binary::stderr(&output);
    assert!(output.status.success(), "{text}");
    String::from_utf8(output.stdout).unwrap()
}
