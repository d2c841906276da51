//! What a guest's connection believes and shows: values that can be compared, so that one rustls
//! configuration serves all connections that mean the same.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::verify::{Believe, Lenient};
use super::{provider, public_roots};

/// A certificate with those that vouch for it, and its key; both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate first.
    pub certificate: Arc<[u8]>,
    /// Never shown.
    pub key: Arc<[u8]>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// What a connection believes and shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// PEM of the authorities; `None`: the public ones.
    pub authorities: Option<Arc<[u8]>>,
    /// Whether the server's certificate has to come from them and be valid.
    pub verify: bool,
    /// Whether it has to bear the server's name, too.
    pub check_name: bool,
    /// For a server that asks.
    pub identity: Option<Identity>,
}

fn read(path: &Path, what: &str) -> Result<Arc<[u8]>, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{what} {}: {e}", path.display()))?;
    Ok(bytes.into())
}

impl Trust {
    /// What files say; read and parsed once, so that a bad file is found when it is configured.
    ///
    /// # Errors
    /// Which file is wrong, and how.
    pub fn load(
        ca: Option<&Path>,
        certificate: Option<&Path>,
        key: Option<&Path>,
    ) -> Result<Self, String> {
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Identity {
                certificate: read(certificate, "certificate")?,
                key: read(key, "key")?,
            }),
            _ => None,
        };
        let trust = Self {
            authorities: ca.map(|ca| read(ca, "ca")).transpose()?,
            verify: true,
            check_name: true,
            identity,
        };
        trusting(&trust)?;
        Ok(trust)
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("there is no PEM certificate in it".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A rustls configuration.
///
/// # Errors
/// When the PEM is none, or a key does not fit its certificate.
pub fn trusting(trust: &Trust) -> Result<Arc<ClientConfig>, String> {
    let roots = match &trust.authorities {
        None => public_roots(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pem).map_err(|e| format!("ca: {e}"))? {
                roots.add(certificate).map_err(|e| format!("ca: {e}"))?;
            }
            roots
        }
    };
    let believe = match (trust.verify, trust.check_name) {
        (false, _) => Believe::Anything,
        (true, false) => Believe::AnyName,
        (true, true) => Believe::Named,
    };
    let strict = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|e| format!("ca: {e}"))?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Lenient::new(strict, believe)));
    let config = match &trust.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain =
                certificates(&identity.certificate).map_err(|e| format!("certificate: {e}"))?;
            let key =
                PrivateKeyDer::from_pem_slice(&identity.key).map_err(|e| format!("key: {e}"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| format!("certificate: {e}"))?
        }
    };
    Ok(Arc::new(config))
}
