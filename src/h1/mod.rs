//! Floor 1: octets to messages and back, HTTP/1.1 as RFC 9112 has it. Strict in, canonical out.
//!
//! Sans-IO: buffers come in, places and decisions go out. No sockets, no clock, no tasks, no
//! logging; what is wrong is a [`MessageError`] that says which rule. The order to read in is the
//! order of the declarations below.
//!
//! # Known attacks, and what guards against each
//!
//! "Chapter" is one of `tests/vectors/requests.txt`, or of `responses.txt` where it says so; every
//! vector there is also fed split at every octet.
//!
//! | attack | what it abuses | guard |
//! | --- | --- | --- |
//! | CL.TE, TE.CL | both lengths, each recipient takes another | chapter Transfer-Encoding, `CL.TE` and the five after it |
//! | TE.TE | a coding that one recipient does not see: `xchunked`, `chunked\x0b`, two lines, quotes | chapter Transfer-Encoding, from `the coding xchunked` on |
//! | TE.0 | a coding that is ignored for some methods | `a_requests_framing_does_not_depend_on_its_method`; `chunked OPTIONS (TE.0)` |
//! | TE in HTTP/1.0 | a version that has no codings | `chunked in HTTP/1.0`, both files |
//! | CL.CL | repeated, listed, signed or padded lengths | chapter Content-Length |
//! | CL.0, 0.CL | a body that one side leaves unread | the pool's verdict, `a_request_not_sent_whole_retires_the_connection` |
//! | chunk size | overflow, `0x`, sign, underscore, white space | chapter Chunks, from `no size` on |
//! | TERM.EXT, EXT.TERM | a bare LF or CR ends an extension for one recipient | chapter Chunks, by these names |
//! | TERM.SPILL, ONE.TWO, ZERO.TWO | a chunk's end of one or two octets, or any two (VSV00016) | chapter Chunks, by these names |
//! | chunk padding | tiny chunks with long lines (CVE-2023-39326) | `chunks_of_one_octet_are_honest_and_padded_ones_are_not` |
//! | trailer merging | `Host`, length or credentials in a trailer section | `a_trailer_field_that_frames_routes_or_authenticates_is_not_passed_on` |
//! | a trailer without colon | a parser that stops early | chapter Chunks, `a trailer field without colon` |
//! | bare CR, bare LF, NUL | a line that only one recipient sees | chapters Request lines and Field lines |
//! | `Transfer\rEncoding` | a wide comparison that folds CR to the hyphen | `two_tokens_are_compared_whatever_their_case`; chapter Field lines, `a CR for the hyphen of a name that frames` |
//! | obs-fold, space before the colon | a name that only one recipient reads | chapter Field lines |
//! | octets from 0x80 in names | case folding and decoding that differ | chapter Field lines, `a name that is not ASCII` |
//! | `Transfer_Encoding` | an origin that takes `_` for `-` | it passes as another field; chapter Field lines says so |
//! | HTTP/0.9, double spaces, tabs | a request line that is cut in other places | chapters Request lines and Versions |
//! | absolute-form against `Host` | two hosts | chapter Targets, `another host than Host` |
//! | `@`, `,`, `/` in a host; two hosts; port 0 | routing by another name than the origin's | chapters Targets and Host |
//! | CR LF in an escape | decoding before writing splits a head | `a path is not normalised`; `what_would_split_a_head_is_not_written` |
//! | premature upgrade (CVE-2026-2833) | octets tunnelled before 101 | `nothing_is_switched_before_the_request_is_sent_whole` |
//! | `h2c` | a tunnel full of requests | `only_a_protocol_that_was_asked_for_is_switched_to` |
//! | 1xx flood | an exchange without end | `sixteen_informational_answers_pass_and_the_seventeenth_does_not` |
//! | octets after an answer | an answer for the next request | responses, `octets after the answer belong to nobody`; `a_second_final_answer_belongs_to_nobody` |
//! | content with HEAD, 204, 304 | the same | responses, chapter Framing of answers |
//! | a short body | truncation that passes for whole | `a_body_cut_short_is_truncated_and_one_until_close_is_whole` |
//! | `Connection: keep-alive`, then `close` | a second line that is not read | `close_wins_over_keep_alive_even_on_a_second_line` |
//! | endless lines, heads, trailers | memory | the tests at max and max + 1 in `head` and `chunked` |

pub mod octets;
pub mod fields;
pub mod error;
mod lines;
pub mod target;
pub mod head;
pub mod framing;
pub mod chunked;
pub mod encode;
pub mod body;
pub mod persistence;
pub mod exchange;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod laws;

pub use chunked::Piece;
pub use error::MessageError;
pub use fields::Field;
pub use fields::FieldSection;
pub use fields::Span;
