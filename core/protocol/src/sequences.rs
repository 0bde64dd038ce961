//! Answers of models of sequences as JSON, in the shape of all predictions of the Common API.

use headrace_engine::{Deployment, RowError, SequenceResponse};

use crate::common::{begin_answer, end_answer, next_member, write_status};
use crate::json::{separate, write};

/// Bytes of JSON that a token takes about, with its score; only to size the buffer.
const BYTES_PER_TOKEN: usize = 24;

/// Writes the answer: `{"text"?, "tokens"?, "score"?, "scores"?, "status"?}` for each row, null in a row that failed.
pub fn encode_sequences(deployment: &Deployment, response: &SequenceResponse) -> Vec<u8> {
    let sizes = response.sequences.iter().map(|sequence| {
        let tokens = sequence.tokens.as_ref().map_or(0, Vec::len).max(sequence.scores.as_ref().map_or(0, Vec::len));
        40 + sequence.text.as_ref().map_or(0, String::len) + BYTES_PER_TOKEN * tokens
    });
    let mut out = Vec::with_capacity(320 + sizes.sum::<usize>());
    begin_answer(&mut out, &response.id, deployment);
    let members = response.members;
    for (row, sequence) in response.sequences.iter().enumerate() {
        separate(&mut out, row);
        out.push(b'{');
        let begin = out.len();
        if members.text {
            out.extend_from_slice(b"\"text\":");
            write(&mut out, &sequence.text);
        }
        if members.tokens {
            next_member(&mut out, begin);
            out.extend_from_slice(b"\"tokens\":");
            write(&mut out, &sequence.tokens);
        }
        if members.score {
            next_member(&mut out, begin);
            out.extend_from_slice(b"\"score\":");
            write(&mut out, &sequence.score);
        }
        if members.scores {
            next_member(&mut out, begin);
            out.extend_from_slice(b"\"scores\":");
            write(&mut out, &sequence.scores);
        }
        if let Some(RowError { error, .. }) = response.row_error(row) {
            next_member(&mut out, begin);
            write_status(&mut out, error);
        }
        out.push(b'}');
    }
    end_answer(&mut out, &response.timing);
    out
}
