/** What CRIU's words about sockets mean in a dump. The texts matched are those of CRIU 3.15 to 4.2. */
import { AGAIN, type Cause } from './cause.ts';

export const socketCauses: readonly Cause[] = [
  { match: /Can't dump corked dgram socket (\S+)/, kind: 'corked', message: 'a UDP socket (inode 0x$1) is corked (UDP_CORK)', hint: `${AGAIN}; a program that corks its socket for good must take UDP_CORK off` },
  { match: /Non-empty write queue on an in-flight socket (\S+)/, kind: 'in-flight', message: 'a UNIX connection that was not accepted yet (socket inode $1) holds data already', hint: AGAIN },
  { match: /Found a closed in-flight socket to (\S+)/, kind: 'in-flight', message: 'a UNIX connection to the socket with inode $1 was closed by its other end before it was accepted', hint: AGAIN },
  { match: /In-flight connection on non-listening socket (\d+)/, kind: 'in-flight', message: 'a UNIX connection (socket inode $1) waits at a socket that does not listen any more', hint: AGAIN },
  { match: /Dangling connection (\d+)/, kind: 'in-flight', message: 'a UNIX connection (socket inode $1) has lost its other end', hint: AGAIN },
  { match: /The socket has data to read/, kind: 'in-flight', message: 'a netlink socket holds answers that were not read yet', hint: AGAIN },
  { match: /netlink socket 0x(\S+) has more than 32 groups|Groups above 32 are not supported/, kind: 'socket', message: 'a netlink socket (inode 0x$1) listens to a group above 32', hint: 'let the program leave that group (or end the monitor: ip monitor, udev, nl80211 tools)' },
  { match: /netlink socket 0x(\S+) is bound to groups but not to portid/, kind: 'socket', message: 'a netlink socket (inode 0x$1) is a member of groups and has no address', hint: 'let the program bind that socket, or close it' },
  { match: /Multiple MC membership not supported|Unknown mc membership type (\d+)/, kind: 'multicast', message: 'a packet socket has a membership that cannot be saved', hint: 'end the packet capture (tcpdump, dhclient), then try again' },
  { match: /Mmap-ed socket (\d+) not open|Can't find packet socket \S+ to mmap|No open packet socket (\S+) by \d+/, kind: 'socket', message: 'the ring of a packet socket is mapped, but its descriptor is closed', hint: 'end the packet capture that runs inside the container' },
  { match: /Can't dump (\d+) inet socket (\S+?)\. Only/, kind: 'socket', message: 'an internet socket (inode 0x$2) is of a type ($1) that CRIU does not know', hint: 'let the program close it: CRIU saves stream, datagram and raw sockets' },
  { match: /Unknown inet socket (\S+) state (\d+)/, kind: 'in-flight', message: 'a TCP connection (inode 0x$1) is just being made or closed (state $2)', hint: AGAIN },
  { match: /Control messages in queue, not supported|More than 1 SCM is not possible|Unexpected 2nd SCM_RIGHTS/, kind: 'in-flight', message: 'a UNIX socket holds messages with several sets of descriptors or with control data that CRIU does not know', hint: AGAIN },
  { match: /Can't find fdesc to send|Can't find sender for (\S+)/, kind: 'in-flight', message: 'a UNIX socket holds a message whose sender is outside the container or gone', hint: AGAIN },
  { match: /unix: Unsupported type \((\d+)\) on socket (\d+)/, kind: 'socket', message: 'a UNIX socket (inode $2) is of type $1', hint: 'let the program close it: CRIU saves stream, datagram and seqpacket sockets' },
  { match: /Unix socket (\d+) with unreachable peer (\d+)/, kind: 'external-unix-socket', message: 'a UNIX socket (inode $1) talks to a socket that nobody in the container can reach (inode $2)', hint: 'let the program close that connection; for datagram sockets of the node, use --ext-unix-sk' },
  { match: /Can't dump name-less external socket/, kind: 'external-unix-socket', message: 'a UNIX datagram socket is connected with a nameless one outside the container', hint: 'let the program close that connection: there is no path by which it could be found again' },
  { match: /Bound socket w\/o inode (\d+)|Can't resolve name for socket (\S+)|Unable too? cut (\S+) from/, kind: 'unix-socket', message: 'the path of a UNIX socket ($1$2$3) cannot be seen from the container\'s root', hint: 'let the program bind its socket again, below the root of the container' },
  { match: /Unable to dump a socket from an external network namespace/, kind: 'foreign-socket', message: 'a socket was made in a network namespace outside the container', hint: 'start the container without handing it sockets of the node' },
  { match: /sockets?: Unknown socket family (\d+)|Unknown pair family (\d+) proto (\d+)/, kind: 'socket', message: 'a socket of family $1$2 cannot be saved', hint: 'let the program close it before a checkpoint' },
  { match: /libsoccr_save\(\) failed|Can't get inet socket's? state|tcp: Can't (?:drop|get|turn|set)/i, kind: 'tcp-established', message: 'the state of a TCP connection could not be read', hint: 'try again; if it stays, close the connection (kernel TLS and MPTCP cannot be saved)' },
  { match: /Failed to lock TCP connection (\S+)/, kind: 'network-lock', message: 'the TCP connection with inode 0x$1 could not be locked', hint: 'does the node have nf_tables? the agent needs CAP_NET_ADMIN in the container\'s network' },
];
