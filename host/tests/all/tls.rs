//! Certificates of the tests' own: an authority, and what it signs for now or for a time
//! that is over.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::harness::Folder;

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as files.
pub(crate) struct Certificate {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// A new one, which nobody knows yet.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "the tests' authority");
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Its own certificate as a file, for `ca`.
    pub(crate) fn file(&self, folder: &Folder) -> PathBuf {
        folder.write("ca.pem", self.0.pem())
    }

    /// Signs for a name or an address.
    pub(crate) fn sign(&self, folder: &Folder, name: &str) -> Certificate {
        self.signed(folder, name, CertificateParams::new([name.to_owned()]))
    }

    /// Signs for a name or an address, for a year that is over.
    pub(crate) fn expired(&self, folder: &Folder, name: &str) -> Certificate {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.signed(folder, &format!("{name}-expired"), Ok(params))
    }

    fn signed(
        &self,
        folder: &Folder,
        file: &str,
        params: Result<CertificateParams, rcgen::Error>,
    ) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let certificate = params.unwrap().signed_by(&key, &self.0).unwrap();
        Certificate {
            chain: folder.write(&format!("{file}.pem"), certificate.pem()),
            key: folder.write(&format!("{file}.key"), key.serialize_pem()),
        }
    }
}
