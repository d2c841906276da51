//! How much of a server's certificate is looked at, and what a refusal is called: OpenSSL's numbers
//! and words, which programs written for OpenResty know.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// What a certificate has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Believe {
    /// Valid, from an authority, with the server's name.
    Named,
    /// Valid and from an authority.
    AnyName,
    /// The peer's, whoever it is: its signature in the handshake is checked all the same.
    Anything,
}

/// rustls's own verifier, with what is not asked for left out.
#[derive(Debug)]
pub(super) struct Lenient {
    strict: Arc<WebPkiServerVerifier>,
    believe: Believe,
}

impl Lenient {
    pub(super) fn new(strict: Arc<WebPkiServerVerifier>, believe: Believe) -> Self {
        Self { strict, believe }
    }
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.believe == Believe::Anything {
            return Ok(ServerCertVerified::assertion());
        }
        let checked = self.strict.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        // The name is looked at last: all else was found good.
        match checked {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.believe == Believe::AnyName => Ok(ServerCertVerified::assertion()),
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}

/// What OpenResty calls it when a certificate is refused; `None` for all other failures.
#[must_use]
pub fn refusal(error: &Error) -> Option<&'static str> {
    let Error::InvalidCertificate(error) = error else {
        return None;
    };
    match error {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some("certificate host mismatch")
        }
        CertificateError::UnknownIssuer => Some("20: unable to get local issuer certificate"),
        CertificateError::BadSignature => Some("7: certificate signature failure"),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Some("9: certificate is not yet valid")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Some("10: certificate has expired")
        }
        CertificateError::Revoked => Some("23: certificate revoked"),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            Some("26: unsupported certificate purpose")
        }
        CertificateError::UnhandledCriticalExtension => Some("34: unhandled critical extension"),
        _ => None,
    }
}
