//! TLS towards Redis: the public authorities, or those of a file.

use std::sync::{Arc, LazyLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::config::model::Redis;

fn config(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn public() -> Result<Arc<ClientConfig>, String> {
    static PUBLIC: LazyLock<Result<Arc<ClientConfig>, String>> = LazyLock::new(|| {
        config(RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        })
    });
    PUBLIC.clone()
}

/// What a connection to this Redis believes.
///
/// # Errors
/// When the file of authorities cannot be read.
pub(super) fn client_config(redis: &Redis) -> Result<Arc<ClientConfig>, String> {
    let Some(path) = &redis.ca else {
        return public();
    };
    let wrong = |e: &dyn std::fmt::Display| format!("ca {}: {e}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(&e))? {
        let certificate = certificate.map_err(|e| wrong(&e))?;
        roots.add(certificate).map_err(|e| wrong(&e))?;
    }
    config(roots)
}
