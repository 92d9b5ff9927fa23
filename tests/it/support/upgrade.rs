//! An upgrade to WebSocket as both ends say it, and the tunnel that comes of it.

use super::Client;
use super::Proxy;

/// What the client asks.
pub const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: it.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";

/// What the origin answers.
pub const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\n";

/// A client whose upgrade the origin has granted with [`SWITCHING`].
#[track_caller]
pub fn tunnel(proxy: &Proxy) -> Client {
    let mut client = proxy.client();
    client.send(UPGRADE);
    let head = client.head();
    assert_eq!(head.status(), 101);
    assert_eq!(head.field("upgrade").unwrap(), "websocket");
    assert!(head.lists("connection", "upgrade"));
    assert_eq!(head.field("sec-websocket-accept").unwrap(), "y");
    client
}
