//! The daemon tier: the real binary: configuration errors, endpoints, signals, closed pipe, full disk. No kernel.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a failure here is the test's failure"
)]

mod canary;
mod check;
mod collector;
mod command_line;
mod connects;
mod deploy;
mod elasticsearch;
mod endpoints;
mod fed;
mod file_sink;
mod filter;
mod ipvs;
mod isolation;
mod old_format;
mod output;
mod packet_file;
mod settings;
mod signals;
mod tail;
mod top;

use support::{
    capture_file::{ETHERNET, Order, Pcap, Unit},
    conversation::Conversation,
};

/// A capture file with `count` exchanges on one connection.
fn capture(count: usize) -> Vec<u8> {
    let mut conversation = Conversation::new();
    for index in 0..count {
        conversation = conversation
            .client(format!("GET /item/{index}?token=secret HTTP/1.1\r\nHost: shop\r\n\r\n"))
            .server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    }
    write(&conversation.close())
}

/// `conversation` as a pcap file.
fn write(conversation: &Conversation) -> Vec<u8> {
    let mut file = Pcap::new(Order::Little, Unit::Nano, ETHERNET);
    for (time, packet) in conversation.to_packets() {
        file.packet(time.as_nanos(), &packet);
    }
    file.bytes
}
