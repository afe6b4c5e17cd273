//! How much memory a message takes once it is read, told from its bytes alone: what is two bytes on
//! the wire may be a hundred in memory, so a message within its limit could still be far too much.
//!
//! Nothing is allocated, and every field is passed over as prost would. What can't be read ends the
//! walk without a word: reading it ends at the same place.

use std::mem::size_of;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::push::Oversized;
use crate::limits::MESSAGE_MEMORY_BYTES_MAX;
use crate::proto::admin::v1::{Bucket, Filter, SyncRules};
use crate::proto::v1::{Column, TableSchema};

/// What one kind of message takes in memory beside its bytes.
#[derive(Debug)]
pub struct Shape {
    bytes: usize,
    fields: &'static [(u32, Part)],
}

/// What one field of a message takes each time it comes.
#[derive(Debug)]
enum Part {
    /// A message.
    Message(&'static Shape),
    /// A text or bytes, which may come any number of times.
    Text,
    /// Numbers of this size, which may come any number of times, packed or not.
    Numbers(usize),
}

/// Nothing but single texts and numbers.
const fn flat(bytes: usize) -> Shape {
    Shape { bytes, fields: &[] }
}

/// `PullRequest`.
pub static PULL: Shape =
    Shape { bytes: 0, fields: &[(4, Part::Text), (7, Part::Numbers(size_of::<u64>()))] };
/// `CheckpointRequest`.
pub static CHECKPOINT: Shape = Shape { bytes: 0, fields: &[(2, Part::Text)] };
/// `PutSchemaRequest`.
pub static PUT_SCHEMA: Shape = Shape { bytes: 0, fields: &[(2, Part::Message(&TABLE))] };
/// `PutSyncRulesRequest`.
pub static PUT_RULES: Shape =
    Shape { bytes: 0, fields: &[(2, Part::Message(&RULES)), (4, Part::Text)] };

static COLUMN: Shape = flat(size_of::<Column>());
static TABLE: Shape = Shape {
    bytes: size_of::<TableSchema>(),
    fields: &[(4, Part::Message(&COLUMN)), (5, Part::Text)],
};
static BUCKET: Shape = Shape {
    bytes: size_of::<Bucket>(),
    fields: &[(2, Part::Text), (3, Part::Message(&FILTER)), (5, Part::Message(&ENTRY))],
};
static RULES: Shape =
    Shape { bytes: size_of::<SyncRules>(), fields: &[(2, Part::Message(&BUCKET))] };
static FILTER: Shape = Shape { bytes: size_of::<Filter>(), fields: &[(3, Part::Text)] };
/// An entry of a map: a key, a value, and its place in the table.
static ENTRY: Shape = flat(4 * size_of::<String>());

/// What `message` takes once it is read, if that is within the limit.
pub fn weigh(message: &[u8], shape: &Shape) -> Result<usize, Oversized> {
    // Texts take what they take on the wire.
    let mut bytes = message.len();
    add(message, shape, &mut bytes)?;
    Ok(bytes)
}

fn add(message: &[u8], shape: &Shape, bytes: &mut usize) -> Result<(), Oversized> {
    *bytes += shape.bytes;
    for (tag, content) in all_fields(message) {
        let Some((_, part)) = shape.fields.iter().find(|(known, _)| *known == tag) else {
            continue;
        };
        match (part, content) {
            (Part::Message(shape), Some(content)) => add(content, shape, bytes)?,
            (Part::Text, Some(_)) => *bytes += size_of::<String>(),
            // A number has a byte at least.
            (Part::Numbers(size), Some(packed)) => *bytes += size * packed.len(),
            (Part::Numbers(size), None) => *bytes += size,
            (Part::Message(_) | Part::Text, None) => {}
        }
        if MESSAGE_MEMORY_BYTES_MAX < *bytes {
            return Err(Oversized::Memory { bytes: *bytes });
        }
    }
    Ok(())
}

/// The fields of a message that are messages, texts or bytes, with their tags.
pub(super) fn fields(message: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    all_fields(message).filter_map(|(tag, content)| content.map(|content| (tag, content)))
}

/// The fields of a message with their tags; without their content, where they are numbers.
fn all_fields(mut message: &[u8]) -> impl Iterator<Item = (u32, Option<&[u8]>)> {
    std::iter::from_fn(move || if message.is_empty() { None } else { field(&mut message) })
}

/// Takes one field; nothing if it can't be read.
fn field<'a>(message: &mut &'a [u8]) -> Option<(u32, Option<&'a [u8]>)> {
    let (tag, wire_type) = decode_key(message).ok()?;
    if wire_type != WireType::LengthDelimited {
        skip_field(wire_type, tag, message, DecodeContext::default()).ok()?;
        return Some((tag, None));
    }
    let length = usize::try_from(decode_varint(message).ok()?).ok()?;
    let (content, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some((tag, Some(content)))
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::field_descriptor_proto::{Label, Type};
    use prost_types::{DescriptorProto, FileDescriptorSet};

    use super::*;
    use crate::limits::MESSAGE_BYTES_MAX;
    use crate::proto::DESCRIPTORS;
    use crate::proto::v1::PullRequest;

    /// All messages of our services by their full names.
    fn described() -> Vec<(String, DescriptorProto)> {
        let files = FileDescriptorSet::decode(DESCRIPTORS).expect("whole descriptors").file;
        let mut found = Vec::new();
        for file in files {
            let package = format!(".{}", file.package());
            let mut pending: Vec<_> =
                file.message_type.into_iter().map(|message| (package.clone(), message)).collect();
            while let Some((parent, message)) = pending.pop() {
                let name = format!("{parent}.{}", message.name());
                pending
                    .extend(message.nested_type.iter().map(|inner| (name.clone(), inner.clone())));
                found.push((name, message));
            }
        }
        found
    }

    /// Everything that may come often is in the shape, and nothing that does not exist.
    fn assert_whole(shape: &Shape, name: &str, all: &[(String, DescriptorProto)]) {
        let (_, message) = all.iter().find(|(known, _)| known == name).expect(name);
        for field in &message.field {
            let tag = u32::try_from(field.number()).expect("a tag");
            let part = shape.fields.iter().find(|(known, _)| *known == tag).map(|(_, part)| part);
            let at = format!("{name}.{}", field.name());
            match (field.r#type(), field.label(), part) {
                (Type::Message, _, Some(Part::Message(shape))) => {
                    assert_whole(shape, field.type_name(), all);
                }
                (Type::String | Type::Bytes, Label::Repeated, Some(Part::Text)) => {}
                (Type::Message | Type::String | Type::Bytes, Label::Repeated, _)
                | (Type::Message, _, _) => panic!("{at} is not weighed"),
                (_, Label::Repeated, part) => {
                    assert!(matches!(part, Some(Part::Numbers(_))), "{at} is not weighed");
                }
                (_, _, part) => assert!(part.is_none(), "{at} comes once"),
            }
        }
        for (tag, _) in shape.fields {
            assert!(
                message.field.iter().any(|field| field.number() as u32 == *tag),
                "{name} {tag}"
            );
        }
    }

    #[test]
    fn shapes_say_all_that_may_come_often() {
        let all = described();
        for (shape, name) in [
            (&PULL, ".lakesync.v1.PullRequest"),
            (&CHECKPOINT, ".lakesync.v1.CheckpointRequest"),
            (&PUT_SCHEMA, ".lakesync.admin.v1.PutSchemaRequest"),
            (&PUT_RULES, ".lakesync.admin.v1.PutSyncRulesRequest"),
        ] {
            assert_whole(shape, name, &all);
        }
    }

    #[test]
    fn what_is_weighed_is_what_reading_takes() {
        let tables = vec![String::new(); 1_000];
        let request = PullRequest { tables, skip_positions: vec![1; 50], ..Default::default() };
        let message = request.encode_to_vec();
        let expected = message.len() + 1_000 * size_of::<String>() + 50 * size_of::<u64>();
        assert_eq!(weigh(&message, &PULL), Ok(expected));
        // The same, one by one, as old libraries write numbers.
        let single = [0x38, 1].repeat(50);
        assert_eq!(weigh(&single, &PULL), Ok(single.len() + 50 * size_of::<u64>()));
    }

    #[test]
    fn a_message_of_millions_of_nothings_is_too_heavy() {
        // Tables without a name, and one table of columns without a name.
        let tables = [0x12, 0x00].repeat(MESSAGE_BYTES_MAX / 2);
        let columns = [0x22, 0x00].repeat(MESSAGE_BYTES_MAX / 2 - 8);
        let mut table = vec![0x12];
        prost::encoding::encode_varint(columns.len() as u64, &mut table);
        let columns = [table, columns].concat();
        for message in [tables, columns] {
            let weighed = weigh(&message, &PUT_SCHEMA);
            assert!(matches!(weighed, Err(Oversized::Memory { .. })), "{weighed:?}");
        }
        assert_eq!(weigh(&[0x12, 0xff], &PUT_SCHEMA), Ok(2), "it can't be read, and takes nothing");
    }
}
