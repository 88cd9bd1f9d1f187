//! TLS before and behind what speaks none.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A certificate that signs itself, with its key, as PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Identity {
    /// For a host name or an address.
    pub fn of(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    /// The certificate as a file.
    pub fn write_certificate(&self, path: &Path) {
        std::fs::write(path, &self.certificate).expect("written");
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate")
    }
}

/// Passes connections on, with TLS on one side. It ends with the value.
pub struct Tls {
    pub address: SocketAddr,
    /// Where they go.
    pub target: SocketAddr,
    _runtime: Runtime,
}

impl Tls {
    /// Takes plain connections, and makes them TLS to `name` at `target`, which has to show this certificate.
    pub fn to(target: SocketAddr, name: &'static str, identity: &Identity) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(identity.der()).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        Self::start(target, move |plain| {
            let connector = connector.clone();
            async move {
                let there = TcpStream::connect(target).await?;
                let name = ServerName::try_from(name).expect("a name");
                join(plain, connector.connect(name, there).await?).await
            }
        })
    }

    /// Takes TLS, and passes on to `target` what is in it.
    pub fn before(target: SocketAddr, identity: &Identity) -> Self {
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![identity.der()], key)
            .expect("an identity");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::start(target, move |stream| {
            let acceptor = acceptor.clone();
            async move { join(acceptor.accept(stream).await?, TcpStream::connect(target).await?).await }
        })
    }

    fn start<F: Future<Output = std::io::Result<()>> + Send + 'static>(
        target: SocketAddr,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Self { address, target, _runtime: runtime }
    }
}

async fn join(
    mut one: impl AsyncRead + AsyncWrite + Unpin,
    mut other: impl AsyncRead + AsyncWrite + Unpin,
) -> std::io::Result<()> {
    copy_bidirectional(&mut one, &mut other).await.map(drop)
}
