//! What a broker hands on, noted record by record: the least of an MQTT 3.1.1 client.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::arrivals::Shared;
use crate::error::{Error, Result};
use crate::netns::Netns;

/// A subscription at quality of service 0, which a broker serves at once, until the broker goes.
#[derive(Debug)]
pub struct Subscriber {
    thread: JoinHandle<()>,
}

impl Subscriber {
    /// Subscribes; everything from then on is noted in `arrivals`.
    ///
    /// # Errors
    /// When the broker does not take the subscription.
    pub fn start(netns: &Netns, port: u16, topic: &str, arrivals: Shared) -> Result<Self> {
        let connect =
            || TcpStream::connect(("127.0.0.1", port)).map_err(Error::io("cannot connect to the broker"));
        let stream = netns.within(connect)?;
        let what = || Error::io("cannot subscribe");
        stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(what())?;
        // CONNECT with a clean session and without a limit of silence, SUBSCRIBE (MQTT 3.1.1 sections 3.1 and 3.8).
        let mut packets = b"\x10\x16\0\x04MQTT\x04\x02\0\0\0\x0asubscriber".to_vec();
        let length = u8::try_from(topic.len()).unwrap_or(0);
        packets.extend([0x82, length + 5, 0, 1, 0, length]);
        packets.extend(topic.as_bytes());
        packets.push(0);
        (&stream).write_all(&packets).map_err(what())?;
        let mut reader = BufReader::with_capacity(1 << 16, stream);
        loop {
            let (kind, _) = packet(&mut reader).map_err(what())?;
            // SUBACK
            if kind == 0x90 {
                break;
            }
        }
        reader.get_ref().set_read_timeout(None).map_err(what())?;
        let thread = thread::spawn(move || {
            while let Ok((kind, body)) = packet(&mut reader) {
                if kind & 0xf0 == 0x30 && body.len() >= 2 {
                    let topic = usize::from(body[0]) << 8 | usize::from(body[1]);
                    let (topic, payload) = body[2..].split_at(topic.min(body.len() - 2));
                    arrivals.lock().message(topic, payload);
                }
            }
        });
        Ok(Self { thread })
    }

    /// Waits for the end of what a broker that is gone has sent.
    ///
    /// # Errors
    /// When the thread panicked.
    pub fn finish(self) -> Result<()> {
        self.thread.join().map_err(|_| Error::Unexpected("the subscriber panicked".into()))
    }
}

/// The next packet: its first byte and what follows the length.
fn packet(reader: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut byte = [0];
    reader.read_exact(&mut byte)?;
    let (kind, mut length, mut shift) = (byte[0], 0usize, 0);
    loop {
        reader.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 || shift > 21 {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((kind, body))
}
