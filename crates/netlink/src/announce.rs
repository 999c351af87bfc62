//! Telling the neighbours on a link which hardware address an IP address has now.
//!
//! A neighbour that talked to the address before keeps the old hardware address for minutes
//! otherwise. IPv4 has the gratuitous ARP request (RFC 5227, section 3), IPv6 the unsolicited
//! neighbour advertisement (RFC 4861, section 7.2.6). This is not netlink, but it is the same kind of
//! thing: bytes for the kernel, through one socket.
//!
//! Both leave through a packet socket that names the interface, so that in a container with
//! several interfaces the right one says it, with the announced address as the source.
#![expect(
    unsafe_code,
    reason = "rustix knows no address of a packet socket, and takes others only by an unsafe trait"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::{IfIndex, MacAddr};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};

use crate::error::{Fault, RequestError};

const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;

/// Where all nodes of a link listen, 33:33 and the low bytes of ff02::1 (RFC 2464, section 7).
const ALL_NODES_MAC: MacAddr = MacAddr::new([0x33, 0x33, 0, 0, 0, 1]);
const BROADCAST: MacAddr = MacAddr::new([0xff; 6]);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Announces an address of an Ethernet interface in the calling thread's namespace.
///
/// It returns when the frame is queued; nobody answers to it.
pub fn announce(index: IfIndex, mac: MacAddr, address: IpAddr) -> Result<(), RequestError> {
    let (to, ethertype, bytes) = match address {
        IpAddr::V4(v4) => (BROADCAST, ETH_P_ARP, arp(mac, v4).to_vec()),
        IpAddr::V6(v6) => (ALL_NODES_MAC, ETH_P_IPV6, advertisement(mac, v6).to_vec()),
    };
    let to = LinkLayer {
        index,
        ethertype,
        to,
    };
    send(&to, &bytes).map_err(|fault| {
        RequestError::new(format!("announce {address} on interface {index}"), fault)
    })
}

fn send(to: &LinkLayer, bytes: &[u8]) -> Result<(), Fault> {
    let flags = SocketFlags::CLOEXEC;
    // Protocol 0: it only sends, and so never queues what others send.
    let socket =
        socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, None).map_err(|errno| {
            Fault::Call {
                call: "socket",
                errno,
            }
        })?;
    sendto(&socket, bytes, SendFlags::empty(), to).map_err(|errno| Fault::Call {
        call: "sendto",
        errno,
    })?;
    Ok(())
}

/// An ARP request for our own address: sender and target are the same.
fn arp(mac: MacAddr, address: Ipv4Addr) -> [u8; 28] {
    let mut bytes = [0; 28];
    // Ethernet, IPv4, 6 and 4 bytes, request.
    bytes[..8].copy_from_slice(&[0, 1, 0x08, 0, 6, 4, 0, 1]);
    bytes[8..14].copy_from_slice(&mac.bytes());
    bytes[14..18].copy_from_slice(&address.octets());
    bytes[18..24].copy_from_slice(&[0xff; 6]);
    bytes[24..].copy_from_slice(&address.octets());
    bytes
}

/// A neighbour advertisement to all nodes, in its IPv6 packet.
fn advertisement(mac: MacAddr, address: Ipv6Addr) -> [u8; 72] {
    let mut bytes = [0; 72];
    // Version 6, 32 bytes of ICMPv6 (58), hop limit 255.
    bytes[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 32, 58, 255]);
    bytes[8..24].copy_from_slice(&address.octets());
    bytes[24..40].copy_from_slice(&ALL_NODES.octets());
    // Neighbour advertisement, override flag, and our hardware address as option 2.
    bytes[40] = 136;
    bytes[44] = 0x20;
    bytes[48..64].copy_from_slice(&address.octets());
    bytes[64..66].copy_from_slice(&[2, 1]);
    bytes[66..].copy_from_slice(&mac.bytes());
    let sum = checksum(&bytes);
    bytes[42..44].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Computes the ICMPv6 checksum of an advertisement, whose field for it is zero (RFC 8200,
/// section 8.1): both addresses, length 32, next header 58, and the message.
fn checksum(packet: &[u8; 72]) -> u16 {
    let words = packet[8..].chunks_exact(2).map(|pair| {
        let pair: [u8; 2] = pair.try_into().unwrap_or_default();
        u32::from(u16::from_be_bytes(pair))
    });
    let mut sum: u32 = words.sum::<u32>() + 32 + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Where a frame goes: `struct sockaddr_ll` of `linux/if_packet.h`.
struct LinkLayer {
    index: IfIndex,
    ethertype: u16,
    to: MacAddr,
}

/// Size of `struct sockaddr_ll`: family u16, protocol be16, index i32, type u16, packet type u8,
/// address length u8, address 8 bytes.
const SOCKADDR_LL: usize = 20;

impl LinkLayer {
    fn bytes(&self) -> [u8; SOCKADDR_LL] {
        let mut bytes = [0; SOCKADDR_LL];
        bytes[..2].copy_from_slice(&AddressFamily::PACKET.as_raw().to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.ethertype.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.index.get().to_ne_bytes());
        bytes[11] = 6;
        bytes[12..18].copy_from_slice(&self.to.bytes());
        bytes
    }
}

// SAFETY: `f` is called once, with a pointer to bytes that live until it returns, and with their
// number. They are a whole `struct sockaddr_ll`, aligned as one.
unsafe impl SocketAddrArg for LinkLayer {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        #[repr(C, align(8))]
        struct Aligned([u8; SOCKADDR_LL]);
        let bytes = Aligned(self.bytes());
        f((&raw const bytes).cast(), 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 0x42]);

    #[test]
    fn a_gratuitous_arp_asks_for_itself() {
        let bytes = arp(MAC, Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(bytes[6..8], [0, 1]);
        assert_eq!(bytes[14..18], bytes[24..28]);
        assert_eq!(bytes[8..14], MAC.bytes());
    }

    #[test]
    fn an_advertisement_has_the_checksum_that_its_reader_computes() {
        let packet = advertisement(MAC, "2001:db8::1".parse().unwrap());
        // Summed with the checksum in it, all ones remain.
        let mut whole = packet;
        assert_eq!(checksum(&whole), 0);
        whole[70] ^= 1;
        assert_ne!(checksum(&whole), 0);
        // Of all-zero flags, target and option, worked out by hand.
        assert_eq!((packet[7], packet[40], packet[44]), (255, 136, 0x20));
    }

    #[test]
    fn the_socket_address_is_the_kernels() {
        let to = LinkLayer {
            index: IfIndex::new(7).unwrap(),
            ethertype: ETH_P_ARP,
            to: BROADCAST,
        };
        let mut expected = [0; SOCKADDR_LL];
        expected[..2].copy_from_slice(&17_u16.to_ne_bytes());
        expected[2..4].copy_from_slice(&[0x08, 0x06]);
        expected[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        expected[11..18].copy_from_slice(&[6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(to.bytes(), expected);
    }
}
