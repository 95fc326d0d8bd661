//! What is tried again, after which pause, and the sentence with which one gives up.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::access::{Access, LONGEST};
use crate::data::Error;

/// Why an attempt failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// In words.
    pub(super) cause: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It may go well the next time.
    Passing,
    /// The token is not accepted.
    Unauthenticated,
    /// This account may not.
    Forbidden,
    /// There is no such object or bucket.
    Missing,
    /// It will fail every time.
    Lasting,
}

impl Failure {
    pub(super) fn passing(cause: impl Into<String>) -> Self {
        Failure {
            kind: Kind::Passing,
            cause: cause.into(),
        }
    }

    pub(super) fn lasting(cause: impl Into<String>) -> Self {
        Failure {
            kind: Kind::Lasting,
            cause: cause.into(),
        }
    }
}

const ANSWERED: &str = "the server answered ";

/// What a server answers with a status other than success, as the client words it.
const STATUS: &str = "Server returned non-2xx status code: ";

/// The innermost cause of an error, in a line.
pub(super) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let text = inner.to_string();
    let line = text.lines().next().unwrap_or_default().trim();
    match line.strip_prefix(STATUS) {
        // What follows the status is a page in XML.
        Some(status) => {
            let status = status.split(": ").next().unwrap_or(status);
            format!("{ANSWERED}{}", status.trim_end_matches(':'))
        }
        None => line.into(),
    }
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as E;
        let said = cause(&error);
        // Of a listing the client tells no more than the status in words.
        let status = said.strip_prefix(ANSWERED).and_then(|rest| rest.get(..3));
        let kind = match status {
            Some("404") => Kind::Missing,
            Some("401") => Kind::Unauthenticated,
            Some("403") => Kind::Forbidden,
            Some("408" | "429") => Kind::Passing,
            Some(status) if status.starts_with('4') => Kind::Lasting,
            _ if matches!(error, E::Generic { .. } | E::JoinError { .. }) => Kind::Passing,
            _ => Kind::Lasting,
        };
        let cause = match kind {
            Kind::Missing if mentions(&error, "NoSuchBucket") => "there is no such bucket".into(),
            Kind::Missing => "there is no such object".into(),
            _ => said,
        };
        Failure { kind, cause }
    }
}

/// Whether an error or what caused it says so.
fn mentions(error: &(dyn std::error::Error + 'static), word: &str) -> bool {
    error.to_string().contains(word) || error.source().is_some_and(|source| mentions(source, word))
}

/// Attempts at one thing.
pub(super) struct Trials<'a> {
    access: &'a Access,
    action: &'static str,
    place: String,
    /// Failures in a row without progress.
    made: u32,
    /// Of them, tokens that were not accepted.
    refused: u32,
    /// The byte reached at the failure before.
    reached: u64,
    /// The beginning, or the last failure after progress.
    since: Instant,
    /// Whether it was said that this is tried again.
    told: bool,
}

/// So long attempts go on without a word.
const SILENCE: Duration = Duration::from_secs(3);

/// Many fail together, and one of them is told in such a time.
const APART: Duration = Duration::from_secs(60);

/// When one was told last.
static TOLD: Mutex<Option<Instant>> = Mutex::new(None);

/// Bytes that count as progress: fewer come of a server that cuts every body at once.
const PROGRESS: u64 = 1 << 16;

impl<'a> Trials<'a> {
    pub(super) fn new(access: &'a Access, action: &'static str, place: String) -> Self {
        Trials {
            access,
            action,
            place,
            made: 0,
            refused: 0,
            reached: 0,
            since: Instant::now(),
            told: false,
        }
    }

    /// How long to wait before the next attempt, which begins at byte `at`; `anonymous` is why no credentials were shown, if so.
    pub(super) fn failed(
        &mut self,
        failure: Failure,
        at: u64,
        anonymous: Option<String>,
    ) -> Result<Duration, Error> {
        if at >= self.reached + PROGRESS {
            (self.made, self.refused, self.reached) = (0, 0, at);
            self.since = Instant::now();
        }
        self.made += 1;
        let again = match failure.kind {
            Kind::Passing => self.made < self.access.attempts,
            // With a new token once more, unless there is none to be had.
            Kind::Unauthenticated => {
                self.refused += 1;
                anonymous.is_none() && self.refused < 3 && self.made < self.access.attempts
            }
            _ => false,
        };
        if !again {
            return Err(self.given_up(failure, anonymous));
        }
        let pause = self.pause();
        tracing::info!(
            "{} failed at byte {at}: {}; attempt {} of {} in {pause:.1?}",
            self.place,
            failure.cause,
            self.made + 1,
            self.access.attempts,
        );
        if self.since.elapsed() + pause >= SILENCE && !self.told {
            self.told = self.tell(&failure.cause);
        }
        Ok(pause)
    }

    /// Says that it takes long, and about how long yet, unless that was just said of something else. Whether it said so.
    fn tell(&self, cause: &str) -> bool {
        let mut last = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < APART) {
            return false;
        }
        *last = Some(Instant::now());
        tracing::warn!(
            "cannot {} {} yet: {cause}; it is tried again, with {} attempts in all, for about {} min",
            self.action,
            self.place,
            self.access.attempts,
            self.left().as_secs().div_ceil(60)
        );
        true
    }

    /// How long the attempts that are left may take.
    fn left(&self) -> Duration {
        (self.made..self.access.attempts)
            .map(|made| self.average(made).mul_f64(1.5) + self.access.patience)
            .sum()
    }

    /// The pause after so many failures.
    fn average(&self, made: u32) -> Duration {
        let doubled = self.access.pause * 2u32.pow((made - 1).min(16));
        doubled.min(LONGEST.max(self.access.pause))
    }

    /// Between half and one and a half of the average, so that many who failed together do not come back together.
    fn pause(&self) -> Duration {
        let random = RandomState::new().hash_one(self.made) as f64 / u64::MAX as f64;
        self.average(self.made).mul_f64(0.5 + random)
    }

    fn given_up(&self, failure: Failure, anonymous: Option<String>) -> Error {
        const LOG_IN: &str = "log in with `gcloud auth application-default login`, or name a service account's file in \
                              GOOGLE_APPLICATION_CREDENTIALS";
        let remedy: String = match (failure.kind, anonymous) {
            (Kind::Passing, _) => "check the network, and start again".into(),
            (Kind::Unauthenticated | Kind::Forbidden, Some(why)) => {
                format!("no credentials were shown ({why}): {LOG_IN}")
            }
            (Kind::Unauthenticated, None) => LOG_IN.into(),
            (Kind::Forbidden, None) => {
                let role = match self.action {
                    "write" | "delete" => "Storage Object User",
                    _ => "Storage Object Viewer",
                };
                format!("give this account the right to do so (the role {role})")
            }
            (Kind::Missing, _) => "check the name".into(),
            (Kind::Lasting, _) => "check the address, the object and the credentials".into(),
        };
        Error::Bucket {
            action: self.action,
            place: self.place.clone(),
            cause: failure.cause,
            attempts: match self.made {
                1 => "at the first attempt".into(),
                n => format!("at the last of {n} attempts"),
            },
            remedy: remedy.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(attempts: u32) -> Access {
        Access {
            attempts,
            pause: Duration::from_millis(100),
            ..Access::default()
        }
    }

    #[test]
    fn pauses_grow_with_jitter_and_progress_begins_anew() {
        let access = access(20);
        let mut trials = Trials::new(&access, "read", "gs://b/k".into());
        let mut fail = |at| trials.failed(Failure::passing("a reset"), at, None);
        for n in 0..12u32 {
            let pause = fail(0).unwrap();
            let average = (Duration::from_millis(100) * 2u32.pow(n)).min(LONGEST);
            assert!(
                pause >= average / 2 && pause <= average * 3 / 2,
                "{pause:?}"
            );
        }
        assert!(fail(PROGRESS).unwrap() <= Duration::from_millis(150));
        let same: Vec<Duration> = (0..4)
            .map(|_| {
                let mut trials = Trials::new(&access, "read", "gs://b/k".into());
                trials.failed(Failure::passing("x"), 0, None).unwrap()
            })
            .collect();
        assert!(same.iter().any(|pause| *pause != same[0]), "{same:?}");
    }

    #[test]
    fn the_role_to_ask_for_is_one_that_may() {
        let access = access(3);
        let refused = |action| {
            let failure = Failure {
                kind: Kind::Forbidden,
                cause: "no".into(),
            };
            let mut trials = Trials::new(&access, action, "gs://b/k".into());
            trials.failed(failure, 0, None).unwrap_err().to_string()
        };
        for action in ["write", "delete"] {
            assert!(refused(action).ends_with("(the role Storage Object User)"));
        }
        for action in ["read", "list", "look for"] {
            assert!(refused(action).ends_with("(the role Storage Object Viewer)"));
        }
    }

    #[test]
    fn the_last_sentence_names_object_attempts_and_cause() {
        let access = access(3);
        let mut trials = Trials::new(&access, "read", "gs://b/k".into());
        trials.failed(Failure::passing("a reset"), 0, None).unwrap();
        trials
            .failed(Failure::passing("a reset"), 10, None)
            .unwrap();
        let error = trials
            .failed(Failure::passing("silence"), 20, None)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read gs://b/k: silence, at the last of 3 attempts; check the network, and start again"
        );
    }
}
