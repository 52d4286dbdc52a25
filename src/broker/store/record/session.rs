//! Records of sessions: the session itself with its will, its subscriptions, its progress, its open QoS 2 ids.

use bytes::Bytes;

use super::{Damaged, Fields, Kind, named_key, pair_key, put, seal, sid_key, unseal};
use crate::{
    broker::{
        codec::{SubscribeOptions, Will},
        message::{Door, Origin},
        store::{Owner, Progress, SessionRecord, Sid, WillRecord},
        stream::Asked,
    },
    names::{ClientId, QoS, TopicFilter},
};

pub(in crate::broker::store) fn write_session(sid: Sid, session: &SessionRecord) -> Vec<u8> {
    seal(Kind::Session, &sid_key(sid.0), |out| {
        write_owner(out, &session.owner);
        put::blob(out, session.client.as_str().as_bytes());
        put::option(out, session.origin.as_ref(), write_origin);
        out.extend_from_slice(&session.expiry.to_le_bytes());
        put::option(out, session.left_at, long);
        put::option(out, session.will.as_ref(), write_will);
    })
}

pub(in crate::broker::store) fn read_session(sid: Sid, record: &[u8]) -> Result<SessionRecord, Damaged> {
    let mut fields = Fields(unseal(Kind::Session, &sid_key(sid.0), record)?);
    let owner = read_owner(&mut fields)?;
    let client = client_id(&mut fields)?;
    let origin = fields.option(read_origin)?;
    let expiry = fields.u32()?;
    let left_at = fields.option(Fields::u64)?;
    let will = fields.option(read_will)?;
    fields.end()?;
    Ok(SessionRecord { owner, client, origin, expiry, left_at, will })
}

fn write_owner(out: &mut Vec<u8>, owner: &Owner) {
    match owner {
        Owner::Client => out.push(0),
        Owner::Estate => out.push(1),
        // Since format 2.
        Owner::Part => out.push(3),
        Owner::Group(filter) => {
            out.push(2);
            put::blob(out, filter.as_str().as_bytes());
        }
    }
}

fn read_owner(fields: &mut Fields<'_>) -> Result<Owner, Damaged> {
    match fields.u8()? {
        0 => Ok(Owner::Client),
        1 => Ok(Owner::Estate),
        3 => Ok(Owner::Part),
        2 => Ok(Owner::Group(filter_of(fields.text()?)?)),
        _ => Err(Damaged::Malformed("an owner is none")),
    }
}

fn filter_of(text: &str) -> Result<TopicFilter, Damaged> {
    TopicFilter::new(text).map_err(|_| Damaged::Malformed("a topic filter is none"))
}

fn long(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn client_id(fields: &mut Fields<'_>) -> Result<ClientId, Damaged> {
    ClientId::new(fields.text()?).map_err(|_| Damaged::Malformed("a client id is none"))
}

fn qos(fields: &mut Fields<'_>) -> Result<QoS, Damaged> {
    QoS::from_u8(fields.u8()?).ok_or(Damaged::Malformed("a QoS is none"))
}

fn write_will(out: &mut Vec<u8>, record: &WillRecord) {
    let will = &record.will;
    put::blob(out, will.topic.as_bytes());
    put::blob(out, &will.payload);
    out.extend_from_slice(&[will.qos as u8, u8::from(will.retain)]);
    out.extend_from_slice(&will.delay.to_le_bytes());
    put::option(out, will.expiry, |out, expiry| out.extend_from_slice(&expiry.to_le_bytes()));
    put::blob(out, &will.properties);
    put::option(out, record.due, long);
}

pub(super) fn write_origin(out: &mut Vec<u8>, origin: &Origin) {
    out.extend_from_slice(&[door_number(origin.door), u8::from(origin.may_start)]);
    put::option(out, origin.client.as_ref(), |out, client| put::blob(out, client.as_str().as_bytes()));
    put::option(out, origin.user.as_ref(), |out, user| put::blob(out, user.as_bytes()));
}

fn read_will(fields: &mut Fields<'_>) -> Result<WillRecord, Damaged> {
    let topic = fields.text()?.to_owned();
    let payload = Bytes::copy_from_slice(fields.blob()?);
    let (qos, retain, delay) = (qos(fields)?, fields.flag()?, fields.u32()?);
    let expiry = fields.option(Fields::u32)?;
    let properties = fields.blob()?.to_vec();
    let due = fields.option(Fields::u64)?;
    Ok(WillRecord { will: Will { topic, payload, qos, retain, delay, expiry, properties }, due })
}

pub(super) fn read_origin(fields: &mut Fields<'_>) -> Result<Origin, Damaged> {
    let (door, may_start) = (door_of(fields.u8()?)?, fields.flag()?);
    let client = fields.option(client_id)?;
    let user = fields.option(|fields| fields.text().map(Into::into))?;
    Ok(Origin { door, client, user, may_start })
}

fn door_number(door: Door) -> u8 {
    match door {
        Door::Mqtt => 0,
        Door::Rest => 1,
        Door::Internal => 2,
        Door::External => 3,
    }
}

fn door_of(number: u8) -> Result<Door, Damaged> {
    match number {
        0 => Ok(Door::Mqtt),
        1 => Ok(Door::Rest),
        2 => Ok(Door::Internal),
        3 => Ok(Door::External),
        _ => Err(Damaged::Malformed("a door is none")),
    }
}

pub(in crate::broker::store) fn write_subscription(sid: Sid, filter: &str, asked: &Asked) -> Vec<u8> {
    seal(Kind::Subscription, &named_key(sid.0, filter), |out| {
        let options = &asked.options;
        out.extend_from_slice(&[
            options.qos as u8,
            u8::from(options.no_local),
            u8::from(options.retain_as_published),
            options.retain_handling,
            u8::from(asked.internal),
        ]);
        put::option(out, asked.id, |out, id| out.extend_from_slice(&id.to_le_bytes()));
    })
}

pub(in crate::broker::store) fn read_subscription(
    sid: Sid,
    filter: &str,
    record: &[u8],
) -> Result<(TopicFilter, Asked), Damaged> {
    let mut fields = Fields(unseal(Kind::Subscription, &named_key(sid.0, filter), record)?);
    let options = SubscribeOptions {
        qos: qos(&mut fields)?,
        no_local: fields.flag()?,
        retain_as_published: fields.flag()?,
        retain_handling: fields.u8()?,
    };
    let (internal, id) = (fields.flag()?, fields.option(Fields::u32)?);
    fields.end()?;
    Ok((filter_of(filter)?, Asked { options, id, internal }))
}

/// Without the ids that are completed: these are to be forgotten, not kept.
pub(in crate::broker::store) fn write_progress(sid: Sid, progress: &Progress) -> Vec<u8> {
    seal(Kind::Progress, &sid_key(sid.0), |out| {
        long(out, progress.floor);
        long(out, progress.sent);
        for positions in [&progress.above, &progress.released] {
            put::count(out, positions.len());
            positions.iter().for_each(|position| long(out, *position));
        }
    })
}

pub(in crate::broker::store) fn read_progress(sid: Sid, record: &[u8]) -> Result<Progress, Damaged> {
    let mut fields = Fields(unseal(Kind::Progress, &sid_key(sid.0), record)?);
    let (floor, sent) = (fields.u64()?, fields.u64()?);
    let (above, released) = (positions(&mut fields)?, positions(&mut fields)?);
    fields.end()?;
    Ok(Progress { floor, sent, above, released, completed: Vec::new() })
}

fn positions(fields: &mut Fields<'_>) -> Result<Vec<u64>, Damaged> {
    let count = fields.count()?;
    let mut bytes = Fields(fields.bytes(count.saturating_mul(8))?);
    (0..count).map(|_| bytes.u64()).collect()
}

pub(in crate::broker::store) fn write_incoming(sid: Sid, id: u16) -> Vec<u8> {
    seal(Kind::Incoming, &pair_key(sid.0, id.into()), |_| {})
}

pub(in crate::broker::store) fn read_incoming(sid: Sid, id: u16, record: &[u8]) -> Result<(), Damaged> {
    Fields(unseal(Kind::Incoming, &pair_key(sid.0, id.into()), record)?).end()
}
