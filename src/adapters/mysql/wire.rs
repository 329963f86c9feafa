//! MySQL's client protocol, as much of it as one text query needs. Packets, framing and password scrambles are
//! `mysql_common`'s. The connection is our own because no kept client lets `verify_ca` trust the named authority alone,
//! ends every call by one deadline, and takes a malformed packet for an error instead of a panic.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::time::Instant;

use mysql_common::constants::{CapabilityFlags, DEFAULT_MAX_ALLOWED_PACKET, StatusFlags};
use mysql_common::io::ParseBuf;
use mysql_common::packets::{
    AuthPlugin, AuthSwitchRequest, CommonOkPacket, ErrPacket, HandshakePacket, HandshakeResponse, OkPacketDeserializer,
    OkPacketKind, OldEofPacket, SslRequest,
};
use mysql_common::proto::codec::error::PacketCodecError;
use mysql_common::proto::{MyDeserialize, MySerialize, sync_framed::MySyncFramed};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::config::{Address, Config, TlsMode};
use super::socket::DeadlineSocket;
use super::{errors, tls};
use crate::ports::{Rows, SqlError, SqlErrorKind};

/// The number of the character set and collation that a client asks for.
const UTF8MB4_GENERAL_CI: u8 = 45;

const COM_QUIT: u8 = 0x01;
const COM_QUERY: u8 = 0x03;

/// First bytes of the server's packets.
const OK: u8 = 0x00;
const MORE_AUTH_DATA: u8 = 0x01;
const EOF: u8 = 0xfe;
const ERR: u8 = 0xff;
/// In place of a value in a row.
const NULL: u8 = 0xfb;

/// What `caching_sha2_password` says in its `MORE_AUTH_DATA`: the scramble was enough, or the password itself is needed.
const SCRAMBLE_ACCEPTED: &[u8] = &[0x03];
const PASSWORD_NEEDED: &[u8] = &[0x04];

/// What we can do. Not `LOCAL INFILE`: no server shall read our files.
const WANTED: CapabilityFlags = CapabilityFlags::CLIENT_PROTOCOL_41
    .union(CapabilityFlags::CLIENT_LONG_PASSWORD)
    .union(CapabilityFlags::CLIENT_SECURE_CONNECTION)
    .union(CapabilityFlags::CLIENT_TRANSACTIONS)
    .union(CapabilityFlags::CLIENT_MULTI_STATEMENTS)
    .union(CapabilityFlags::CLIENT_MULTI_RESULTS)
    .union(CapabilityFlags::CLIENT_PLUGIN_AUTH)
    .union(CapabilityFlags::CLIENT_CONNECT_ATTRS);

/// What no server of this century lacks, and without which the packets have another form.
const NEEDED: CapabilityFlags = CapabilityFlags::CLIENT_PROTOCOL_41.union(CapabilityFlags::CLIENT_SECURE_CONNECTION);

/// An authenticated connection.
#[derive(Debug)]
pub struct Wire {
    stream: MySyncFramed<Stream>,
    capabilities: CapabilityFlags,
    connection_id: u32,
}

#[derive(Debug)]
enum Stream {
    Plain(DeadlineSocket),
    Tls(Box<StreamOwned<ClientConnection, DeadlineSocket>>),
}

impl Wire {
    /// Greets, encrypts and authenticates, all before `until`. `socket` is connected to the address of `config`.
    pub fn handshake(
        socket: DeadlineSocket,
        config: &Config,
        application_name: &str,
        until: Instant,
    ) -> Result<Self, SqlError> {
        let stream = MySyncFramed::new(Stream::Plain(socket));
        let mut this = Self { stream, capabilities: CapabilityFlags::empty(), connection_id: 0 };
        this.set_deadline(until);
        let packet = this.read()?;
        let greeting: HandshakePacket = parse(&packet, ())?;
        this.connection_id = greeting.connection_id();
        if !greeting.capabilities().contains(NEEDED) {
            return Err(garbled("its protocol is older than MySQL 4.1"));
        }
        this.capabilities = wanted(config) & greeting.capabilities();
        if let Address::Tcp(host, _) = &config.address {
            if this.capabilities.contains(CapabilityFlags::CLIENT_SSL) {
                this = this.encrypt(host, config)?;
            } else if config.tls >= TlsMode::Required {
                return Err(SqlError::new(SqlErrorKind::Tls, "the server does not offer TLS, which ssl_mode requires"));
            }
        }
        this.authenticate(&greeting, config, application_name)?;
        Ok(this)
    }

    /// The server's number for this session.
    pub fn connection_id(&self) -> u32 {
        self.connection_id
    }

    pub fn socket(&self) -> &DeadlineSocket {
        match self.stream.get_ref() {
            Stream::Plain(socket) => socket,
            Stream::Tls(session) => session.get_ref(),
        }
    }

    /// From now on, every call ends before `until`.
    pub fn set_deadline(&mut self, until: Instant) {
        match self.stream.get_mut() {
            Stream::Plain(socket) => socket.set_deadline(until),
            Stream::Tls(session) => session.get_mut().set_deadline(until),
        }
    }

    /// Runs the statements of `sql` and returns the rows of those that return rows.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Rows>, SqlError> {
        self.command(COM_QUERY, sql)?;
        let mut results = vec![];
        loop {
            let packet = self.read()?;
            let status = if packet.first() == Some(&OK) {
                self.status::<CommonOkPacket>(&packet)?
            } else {
                let columns = ParseBuf(&packet).checked_eat_lenenc_int().ok_or_else(truncated)?;
                let (rows, status) = self.rows(columns)?;
                results.push(rows);
                status
            };
            if !status.contains(StatusFlags::SERVER_MORE_RESULTS_EXISTS) {
                return Ok(results);
            }
        }
    }

    /// Says goodbye, so that the server ends the session now.
    pub fn quit(&mut self) -> Result<(), SqlError> {
        self.command(COM_QUIT, "")
    }

    /// The rows of a result with this many columns, and the status behind them.
    fn rows(&mut self, columns: u64) -> Result<(Rows, StatusFlags), SqlError> {
        for _ in 0..columns {
            self.read()?;
        }
        let packet = self.read()?;
        self.status::<OldEofPacket>(&packet)?;
        let mut rows = Rows::new(usize::try_from(columns).map_err(|_| truncated())?);
        let mut packet = vec![];
        loop {
            self.read_into(&mut packet)?;
            // A row can begin with this byte too, before a value that makes it longer than any end.
            if packet.first() == Some(&EOF) && packet.len() < 9 {
                return Ok((rows, self.status::<OldEofPacket>(&packet)?));
            }
            push_row(&mut rows, &packet, columns)?;
        }
    }

    fn encrypt(mut self, host: &str, config: &Config) -> Result<Self, SqlError> {
        let request = SslRequest::new(self.capabilities, packet_limit(), UTF8MB4_GENERAL_CI);
        self.write_struct(&request)?;
        let (unread, unsent, codec, stream) = self.stream.destruct();
        let Stream::Plain(mut socket) = stream else { return Err(garbled("TLS within TLS")) };
        // Whatever came before the handshake was not protected by it, and would be taken for protected.
        if !unread.is_empty() {
            return Err(garbled("it sent data before the TLS handshake"));
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| SqlError::new(SqlErrorKind::Tls, format!("{host} cannot be a name in a certificate")))?;
        let mut session =
            ClientConnection::new(tls::client_config(config)?, name).map_err(|error| tls::failed(&error))?;
        while session.is_handshaking() {
            session.complete_io(&mut socket).map_err(|error| handshake_failed(&error))?;
        }
        let stream = Stream::Tls(Box::new(StreamOwned::new(session, socket)));
        self.stream = MySyncFramed::construct(unread, unsent, codec, stream);
        Ok(self)
    }

    fn authenticate(
        &mut self,
        greeting: &HandshakePacket<'_>,
        config: &Config,
        application_name: &str,
    ) -> Result<(), SqlError> {
        let mut nonce = greeting.nonce();
        nonce.resize(20, 0);
        // Both are common; a server that wants another method says so.
        let mut plugin = match greeting.auth_plugin() {
            Some(AuthPlugin::CachingSha2Password) => AuthPlugin::CachingSha2Password,
            _ => AuthPlugin::MysqlNativePassword,
        };
        let reply = self.auth_reply(&plugin, &nonce, config)?;
        let attributes = HashMap::from([("program_name".to_owned(), application_name.to_owned())]);
        let has = |flag| self.capabilities.contains(flag);
        self.write_struct(&HandshakeResponse::new(
            Some(reply),
            // From this version on, the response asks for utf8mb4; all that still run know it.
            (5, 5, 3),
            Some(config.username.as_bytes()),
            config.database.as_ref().map(String::as_bytes),
            has(CapabilityFlags::CLIENT_PLUGIN_AUTH).then(|| plugin.borrow()),
            self.capabilities,
            has(CapabilityFlags::CLIENT_CONNECT_ATTRS).then_some(attributes),
            packet_limit(),
        ))?;
        loop {
            let packet = self.read()?;
            match packet.split_first() {
                Some((&OK, _)) => return Ok(()),
                Some((&MORE_AUTH_DATA, data)) if data == SCRAMBLE_ACCEPTED => {}
                Some((&MORE_AUTH_DATA, data)) if data == PASSWORD_NEEDED => {
                    let password = self.plain_password(config)?;
                    self.write(&password)?;
                }
                Some((&EOF, [])) => return Err(unsupported_method("mysql_old_password")),
                Some((&EOF, _)) => {
                    let switch: AuthSwitchRequest = parse(&packet, ())?;
                    plugin = switch.auth_plugin().into_owned();
                    let reply = self.auth_reply(&plugin, switch.plugin_data(), config)?;
                    self.write(&reply)?;
                }
                _ => return Err(garbled("an unknown step of the authentication")),
            }
        }
    }

    fn auth_reply(&self, plugin: &AuthPlugin<'_>, nonce: &[u8], config: &Config) -> Result<Vec<u8>, SqlError> {
        let password = config.password.as_ref().map(crate::secret::Secret::expose);
        match plugin {
            AuthPlugin::MysqlNativePassword | AuthPlugin::CachingSha2Password => {
                Ok(plugin.gen_data(password, nonce).map(|scramble| scramble.to_vec()).unwrap_or_default())
            }
            AuthPlugin::MysqlClearPassword if config.cleartext => self.plain_password(config),
            AuthPlugin::Other(name) if name.as_ref() == b"sha256_password" => self.plain_password(config),
            other => Err(unsupported_method(&String::from_utf8_lossy(other.as_bytes()))),
        }
    }

    /// The password as it is, which only a connection that nobody else reads may carry.
    fn plain_password(&self, config: &Config) -> Result<Vec<u8>, SqlError> {
        let is_private =
            matches!(self.stream.get_ref(), Stream::Tls(_)) || matches!(config.address, Address::Socket(_));
        if !is_private {
            return Err(SqlError::new(
                SqlErrorKind::Denied,
                "the server asks for the password itself, which is sent over TLS or a Unix socket only",
            )
            .hint("Let the server offer TLS, or connect over its socket."));
        }
        let mut password = config.password.as_ref().map_or_else(Vec::new, |password| password.expose().into());
        password.push(0);
        Ok(password)
    }

    fn command(&mut self, command: u8, argument: &str) -> Result<(), SqlError> {
        self.stream.codec_mut().reset_seq_id();
        self.write(&[&[command], argument.as_bytes()].concat())
    }

    fn write_struct(&mut self, packet: &impl MySerialize) -> Result<(), SqlError> {
        let mut bytes = vec![];
        packet.serialize(&mut bytes);
        self.write(&bytes)
    }

    fn write(&mut self, mut packet: &[u8]) -> Result<(), SqlError> {
        self.stream.send(&mut packet).map_err(|error| lost(&error))
    }

    /// The next packet, never empty; the server's own error is ours.
    fn read(&mut self) -> Result<Vec<u8>, SqlError> {
        let mut packet = vec![];
        self.read_into(&mut packet)?;
        Ok(packet)
    }

    /// The same into a buffer that is used again.
    fn read_into(&mut self, packet: &mut Vec<u8>) -> Result<(), SqlError> {
        packet.clear();
        match self.stream.next_packet(packet) {
            Ok(true) => {}
            Ok(false) => return Err(lost(&io::Error::from(io::ErrorKind::UnexpectedEof).into())),
            Err(error) => return Err(lost(&error)),
        }
        match packet.first() {
            None => Err(garbled("an empty packet")),
            Some(&ERR) => match parse::<ErrPacket>(packet, self.capabilities)? {
                ErrPacket::Error(error) => Err(errors::from_server(&error)),
                ErrPacket::Progress(_) => Err(garbled("a progress report, not asked for")),
            },
            Some(_) => Ok(()),
        }
    }

    fn status<Kind: OkPacketKind>(&self, packet: &[u8]) -> Result<StatusFlags, SqlError> {
        Ok(parse::<OkPacketDeserializer<Kind>>(packet, self.capabilities)?.into_inner().status_flags())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(session) => session.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(session) => session.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(session) => session.flush(),
        }
    }
}

/// What we ask the server for: TLS too, except over a Unix socket, which does not leave the machine.
fn wanted(config: &Config) -> CapabilityFlags {
    let mut wanted = WANTED;
    wanted.set(CapabilityFlags::CLIENT_CONNECT_WITH_DB, config.database.is_some());
    let is_remote = matches!(config.address, Address::Tcp(..));
    wanted.set(CapabilityFlags::CLIENT_SSL, is_remote && config.tls > TlsMode::Disabled);
    wanted
}

/// One row of the text protocol: each value with its length before it.
fn push_row(rows: &mut Rows, packet: &[u8], columns: u64) -> Result<(), SqlError> {
    let mut values = ParseBuf(packet);
    for _ in 0..columns {
        if values.0.first() == Some(&NULL) {
            values.skip(1);
            rows.push(None);
        } else {
            rows.push_bytes(Some(values.checked_eat_lenenc_str().ok_or_else(truncated)?));
        }
    }
    Ok(())
}

fn packet_limit() -> u32 {
    u32::try_from(DEFAULT_MAX_ALLOWED_PACKET).unwrap_or(u32::MAX)
}

fn parse<'de, T: MyDeserialize<'de>>(packet: &'de [u8], context: T::Ctx) -> Result<T, SqlError> {
    ParseBuf(packet).parse(context).map_err(|_| truncated())
}

fn truncated() -> SqlError {
    garbled("a packet with something missing")
}

fn garbled(what: &str) -> SqlError {
    SqlError::new(SqlErrorKind::Lost, format!("the server's answer is not MySQL's protocol: {what}"))
}

fn unsupported_method(name: &str) -> SqlError {
    SqlError::new(SqlErrorKind::Denied, format!("the server asks for the authentication method {name}, unknown here"))
        .hint("Give the user mysql_native_password or caching_sha2_password.")
}

fn lost(error: &PacketCodecError) -> SqlError {
    let what = match error {
        PacketCodecError::Io(error) => match error.kind() {
            io::ErrorKind::TimedOut => "the server did not answer in time".to_owned(),
            io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
            _ => format!("the connection to the server is lost: {error}"),
        },
        error => format!("the connection to the server cannot be used any more: {error}"),
    };
    SqlError::new(SqlErrorKind::Lost, what)
}

fn handshake_failed(error: &io::Error) -> SqlError {
    match error.get_ref().and_then(|cause| cause.downcast_ref()) {
        Some(cause) => tls::failed(cause),
        None if error.kind() == io::ErrorKind::TimedOut => {
            SqlError::new(SqlErrorKind::Lost, "the server did not answer in time")
        }
        None => SqlError::new(SqlErrorKind::Tls, format!("TLS with the server failed: {error}")),
    }
}
