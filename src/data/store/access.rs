//! How buckets are reached: where the service is, who asks, and how long one waits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use object_store::gcp::{
    GcpCredential, GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey,
};
use object_store::{ClientOptions, RetryConfig, StaticCredentialProvider};

use super::bucket::Bucket;
use super::trials::{Failure, Kind};

/// How a bucket is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Address of the service; none: Google's.
    pub endpoint: Option<String>,
    /// Whether to ask without saying who asks.
    pub anonymous: bool,
    /// Attempts in a row without progress, after which one gives up.
    pub attempts: u32,
    /// How long a connection may be silent.
    pub patience: Duration,
    /// The first pause between attempts, on average; each further one is twice as long, up to [`LONGEST`].
    pub pause: Duration,
}

/// The longest pause between attempts, on average.
pub const LONGEST: Duration = Duration::from_secs(20);

impl Default for Access {
    fn default() -> Self {
        Access {
            endpoint: None,
            anonymous: false,
            // Of pauses alone about three minutes.
            attempts: 14,
            patience: Duration::from_secs(20),
            pause: Duration::from_millis(200),
        }
    }
}

impl Access {
    /// As the environment says: `STORAGE_EMULATOR_HOST` is asked in place of Google, without credentials unless some are named;
    /// `SIMCLR_GS_ATTEMPTS` and `SIMCLR_GS_PATIENCE` (seconds) are for networks that are worse than usual.
    pub fn from_env() -> Self {
        let text = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let number = |name| text(name).and_then(|text| text.parse::<u32>().ok());
        let usual = Access::default();
        let endpoint = text("STORAGE_EMULATOR_HOST").map(|host| match host.contains("://") {
            true => host.trim_end_matches('/').to_string(),
            false => format!("http://{host}"),
        });
        Access {
            anonymous: endpoint.is_some() && !named() && text("GCE_METADATA_HOST").is_none(),
            endpoint,
            attempts: number("SIMCLR_GS_ATTEMPTS")
                .unwrap_or(usual.attempts)
                .max(1),
            patience: number("SIMCLR_GS_PATIENCE")
                .map_or(usual.patience, |n| Duration::from_secs(n.max(1).into())),
            ..usual
        }
    }

    /// A client of a bucket, and why it asks without credentials if it does. Credentials are those that the environment names
    /// (`GOOGLE_APPLICATION_CREDENTIALS`, `GOOGLE_SERVICE_ACCOUNT`, …), else those of `gcloud auth application-default login`, else the
    /// service account of this virtual machine, else none.
    ///
    /// # Errors
    /// Also if this is a machine of Google's whose account cannot be had now: then nothing is asked without credentials, for what it
    /// would be refused may be had with them a moment later.
    pub(super) async fn connect(
        &self,
        bucket: &str,
    ) -> Result<(GoogleCloudStorage, Option<String>), Failure> {
        let client = ClientOptions::new()
            .with_allow_http(true)
            .with_timeout_disabled()
            .with_connect_timeout(self.patience.min(Duration::from_secs(10)));
        let builder = || {
            let mut builder = GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .with_client_options(client.clone())
                // What fails is tried again by `Trials`, which knows the byte that was reached.
                .with_retry(RetryConfig {
                    max_retries: 0,
                    ..RetryConfig::default()
                });
            if let Some(endpoint) = &self.endpoint {
                builder = builder.with_base_url(endpoint);
            }
            builder
        };
        let anonymous = |why: String| {
            // Whoever writes is asked for a token all the same.
            let nobody = GcpCredential {
                bearer: String::new(),
            };
            let client = builder()
                .with_skip_signature(true)
                .with_credentials(Arc::new(StaticCredentialProvider::new(nobody)))
                .build()?;
            Ok((client, Some(why)))
        };
        if self.anonymous {
            return anonymous("none are wanted".into());
        }
        let found = builder().build()?;
        if named() {
            return Ok((found, None));
        }
        let Err(error) = found.credentials().get_credential().await else {
            return Ok((found, None));
        };
        let failure = Failure::from(error);
        // A machine without an account answers that there is none.
        if failure.kind == Kind::Missing {
            return anonymous("this machine has no service account".into());
        }
        if !has_metadata() {
            return anonymous(failure.cause);
        }
        let asked = "no token of this machine's service account";
        Err(Failure::passing(format!("{asked}: {}", failure.cause)))
    }
}

/// Whether there is a metadata server to ask for a token: on Google's virtual machines, or where the environment says so.
fn has_metadata() -> bool {
    let product = || std::fs::read_to_string("/sys/class/dmi/id/product_name");
    std::env::var_os("GCE_METADATA_HOST").is_some()
        || product().is_ok_and(|name| name.starts_with("Google"))
}

/// Whether credentials are named by the environment or lie where gcloud puts them.
fn named() -> bool {
    account().is_some()
}

/// The account of the credentials that the environment names or that lie where gcloud puts them, as far as they tell.
pub(super) fn account() -> Option<String> {
    use GoogleConfigKey as Key;
    let builder = GoogleCloudStorageBuilder::from_env();
    let value = |key: Key| builder.get_config_value(&key);
    let of_file = |file: &Path| {
        let content = std::fs::read_to_string(file).unwrap_or_default();
        format!("{} ({})", account_of(&content), file.display())
    };
    // In the order in which the library takes them.
    if value(Key::BearerToken).is_some() {
        return Some("the owner of the environment's token".into());
    }
    if let Some(file) = value(Key::ServiceAccount) {
        return Some(of_file(Path::new(&file)));
    }
    if let Some(key) = value(Key::ServiceAccountKey) {
        return Some(format!("{} (a key of the environment)", account_of(&key)));
    }
    if let Some(file) = value(Key::ApplicationCredentials) {
        return Some(of_file(Path::new(&file)));
    }
    let home = PathBuf::from(std::env::var_os("HOME")?);
    let file = home.join(".config/gcloud/application_default_credentials.json");
    file.is_file().then(|| of_file(&file))
}

/// Whose a file of credentials is.
fn account_of(content: &str) -> String {
    let found: serde_json::Value = serde_json::from_str(content).unwrap_or_default();
    let text = |key: &str| found[key].as_str().filter(|text| !text.is_empty());
    match (
        text("client_email").or_else(|| text("account")),
        text("type"),
    ) {
        (Some(account), _) => account.into(),
        (None, Some("authorized_user")) => "the user who logged in".into(),
        _ => "an account that its file does not name".into(),
    }
}

static BUCKETS: LazyLock<Mutex<BTreeMap<String, Arc<Bucket>>>> = LazyLock::new(Mutex::default);

/// Says how a bucket is reached, in place of what the environment says.
pub fn mount(bucket: &str, access: Access) {
    let mut known = BUCKETS.lock().unwrap_or_else(PoisonError::into_inner);
    known.insert(bucket.into(), Arc::new(Bucket::new(bucket, access)));
}

/// The bucket of this name; one for the whole process, so that it asks for one token.
pub(super) fn bucket(name: &str) -> Arc<Bucket> {
    let mut known = BUCKETS.lock().unwrap_or_else(PoisonError::into_inner);
    known
        .entry(name.into())
        .or_insert_with(|| Arc::new(Bucket::new(name, Access::from_env())))
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_credentials_says_whose_it_is() {
        for (content, account) in [
            (
                r#"{"type": "service_account", "client_email": "a@b.iam"}"#,
                "a@b.iam",
            ),
            (
                r#"{"type": "authorized_user", "account": "me@here"}"#,
                "me@here",
            ),
            (
                r#"{"type": "authorized_user", "account": ""}"#,
                "the user who logged in",
            ),
            ("no JSON", "an account that its file does not name"),
        ] {
            assert_eq!(account_of(content), account);
        }
    }
}
