//! Answers of models of sequences as messages.

use headrace_engine::{Deployment, RowError, Sequence, SequenceMembers, SequenceResponse};

use super::common::{put_beginning, put_status, put_timing};
use super::wire::{put_bytes, put_double, put_doubles, put_nested, put_varint};

/// Appends the PredictResponse. `deployment` is the one that answered.
pub fn encode_sequences(out: &mut Vec<u8>, deployment: &Deployment, response: &SequenceResponse) {
    put_beginning(out, deployment, &response.id);
    for (row, sequence) in response.sequences.iter().enumerate() {
        put_nested(out, 7, |out| {
            if let Some(RowError { error, .. }) = response.row_error(row) {
                return put_status(out, error);
            }
            put_nested(out, 7, |out| put_sequence(out, response.members, sequence));
        });
    }
    put_timing(out, &response.timing);
}

fn put_sequence(out: &mut Vec<u8>, members: SequenceMembers, sequence: &Sequence) {
    if let Some(text) = sequence.text.as_ref().filter(|_| members.text) {
        put_bytes(out, 1, text.as_bytes());
    }
    if let Some(tokens) = sequence.tokens.as_ref().filter(|_| members.tokens) {
        put_nested(out, 2, |out| {
            put_nested(out, 1, |out| tokens.iter().for_each(|token| put_varint(out, token.cast_unsigned())));
        });
    }
    if let Some(score) = sequence.score.filter(|_| members.score) {
        put_double(out, 3, score);
    }
    if let Some(scores) = sequence.scores.as_ref().filter(|_| members.scores) {
        put_nested(out, 4, |out| put_doubles(out, 1, scores));
    }
}
