//! Connections, listening sockets, names looked up.

use std::fmt::Write as _;
use std::net::IpAddr;

use defender_model::dns::Dns;
use defender_model::network::{Direction, Flow, FlowChange, Listener, Protocol};

use super::{
    counter, non_empty, number, optional, some_text, text, truth, with_actor, word, Class, FieldSpec,
    Scratch, Value, Values,
};

pub(super) const FLOW: &[FieldSpec] = with_actor![
    word(&["SourceIp", "src_ip", "SourceAddress"]),
    number(&["SourcePort", "src_port"]),
    word(&["DestinationIp", "dst_ip", "DestinationAddress"]),
    number(&["DestinationPort", "dst_port"]),
    text(&["DestinationHostname", "dst_host"]),
    word(&["Initiated"]),
    word(&["Protocol", "proto"]),
    word(&["direction"]),
    word(&["activity"]),
    number(&["bytes_out"]),
    number(&["bytes_in"]),
    number(&["packets_out"]),
    number(&["packets_in"]),
    number(&["duration"]),
    word(&["SourceIsIpv6"]),
    word(&["DestinationIsIpv6"]),
    text(&["rule", "log_prefix"]),
];

pub(super) fn classes(flow: &Flow) -> &'static [Class] {
    match flow.change {
        FlowChange::Opened => &[Class::NetworkConnection, Class::NetworkFlow],
        FlowChange::Closed | FlowChange::Failed | FlowChange::Traffic | FlowChange::Denied => {
            &[Class::NetworkFlow]
        }
    }
}

pub(super) fn flow<'e>(flow: &'e Flow, scratch: &'e mut Scratch) -> Values<'e> {
    let Scratch { line, first, second } = scratch;
    let direction = match flow.direction {
        Direction::Inbound => Value::Text("inbound"),
        Direction::Outbound => Value::Text("outbound"),
        Direction::Local => Value::Text("local"),
        Direction::Unknown => Value::Absent,
    };
    let duration = flow.started.zip(flow.ended).map(|(from, to)| to.since(from) / 1000);
    Values::of(&[
        address(flow.source.address, first),
        optional(flow.source.port.map(u32::from)),
        address(flow.destination.address, second),
        optional(flow.destination.port.map(u32::from)),
        some_text(flow.destination_name.as_deref()),
        match flow.direction {
            Direction::Inbound => truth(false),
            Direction::Outbound | Direction::Local => truth(true),
            Direction::Unknown => Value::Absent,
        },
        protocol(flow.protocol, line),
        direction,
        Value::Text(match flow.change {
            FlowChange::Opened => "opened",
            FlowChange::Closed => "closed",
            FlowChange::Failed => "failed",
            FlowChange::Traffic => "traffic",
            FlowChange::Denied => "denied",
        }),
        counter(flow.forward.map(|v| v.bytes)),
        counter(flow.reply.map(|v| v.bytes)),
        counter(flow.forward.map(|v| v.packets)),
        counter(flow.reply.map(|v| v.packets)),
        duration.map_or(Value::Absent, Value::Number),
        truth(flow.source.address.is_ipv6()),
        truth(flow.destination.address.is_ipv6()),
        some_text(flow.rule.as_deref()),
    ])
    .actor(17, flow.process.as_ref())
}

pub(super) const LISTENER: &[FieldSpec] = with_actor![
    word(&["LocalIp", "SourceIp", "src_ip"]),
    number(&["LocalPort", "SourcePort", "src_port", "port"]),
    word(&["Protocol", "proto"]),
];

pub(super) fn listener<'e>(socket: &'e Listener, scratch: &'e mut Scratch) -> Values<'e> {
    let Scratch { line, first, .. } = scratch;
    Values::of(&[
        address(socket.local.address, first),
        optional(socket.local.port.map(u32::from)),
        protocol(socket.protocol, line),
    ])
    .actor(3, socket.process.as_ref())
}

pub(super) const DNS: &[FieldSpec] = with_actor![
    text(&["QueryName", "query"]),
    word(&["record_type", "QueryType"]),
    number(&["QueryStatus", "rcode"]),
    word(&["rcode_name"]),
    text(&["QueryResults", "answer", "answers"]),
    word(&["DestinationIp", "dst_ip", "server"]),
    number(&["DestinationPort", "dst_port"]),
];

pub(super) fn dns<'e>(dns: &'e Dns, scratch: &'e mut Scratch) -> Values<'e> {
    let Scratch { line, first, .. } = scratch;
    for answer in &dns.answers {
        if !line.is_empty() {
            line.push(';');
        }
        line.push_str(&answer.data);
    }
    Values::of(&[
        non_empty(&dns.name),
        non_empty(&dns.record_type),
        optional(dns.rcode.map(u32::from)),
        some_text(dns.rcode.and_then(Dns::rcode_name)),
        non_empty(line),
        dns.server.map_or(Value::Absent, |server| address(server.address, first)),
        optional(dns.server.and_then(|server| server.port).map(u32::from)),
    ])
    .actor(7, dns.process.as_ref())
}

fn address(address: IpAddr, out: &mut String) -> Value<'_> {
    // Writing to a String cannot fail.
    let _ = write!(out, "{address}");
    Value::Text(out)
}

/// The protocol's name, else its number.
fn protocol(protocol: Protocol, out: &mut String) -> Value<'_> {
    match protocol.name() {
        Some(name) => Value::Text(name),
        None => {
            // Writing to a String cannot fail.
            let _ = write!(out, "{protocol}");
            Value::Text(out)
        }
    }
}
