//! The digest on the wire is the digest that the server computes from what it stores.

use regionwise_postgres::Direct;
use regionwise_relocation::digest::{Digest, RowHasher, Salt, user_digest};
use regionwise_relocation::tuple::CopyReader;

use crate::server::Server;

const SALT: Salt = Salt([0x5a; 32]);
const TABLE: u16 = 7;

const FIXTURE: &str = r#"
    CREATE EXTENSION citext SCHEMA public;
    CREATE EXTENSION hstore SCHEMA public;
    CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'happy');
    CREATE DOMAIN public.positive AS int4 CHECK (VALUE > 0);
    CREATE TABLE public.everything (
        a_text text, b_numeric numeric, c_timestamptz timestamptz, d_jsonb jsonb, e_float8 float8, f_bytea bytea,
        g_uuid uuid, h_enum public.mood, i_ints int4[], j_texts text[], k_bool bool, l_date date, m_interval interval,
        n_inet inet, o_float4 float4, p_int2 int2, q_char char(5), r_json json, s_time timetz, t_range int8range,
        u_domain public.positive, v_citext public.citext, w_hstore public.hstore, x_xml xml, y_bits varbit,
        z_generated text GENERATED ALWAYS AS (a_text || '!') STORED);
    INSERT INTO public.everything VALUES
        ('é€𝄞', 1.10, '2026-11-24 12:00:00.000001+02', '{"a": [1.0, null]}', 'NaN', '\x00ff', gen_random_uuid(), 'ok',
         '{1,NULL,3}', '{a,"",NULL}', true, '0044-03-15 BC', '1 mon -3 days 04:05:06.7', '10.0.0.0/8', 'NaN', -1, 'ab',
         '{"b" :1}', '12:00:00+05:30', '[1,10)', 5, 'CasE', 'k=>NULL', '<a/>', B'10110'),
        ('', 'NaN', 'infinity', 'null', '-0', '', NULL, 'sad', '{}', '{}', false, 'infinity', '0', '::1', '-0', 0, '',
         '[]', '00:00:00Z', 'empty', 1, '', '', '', B''),
        (' ', 1.1, '-infinity', '0', 'Infinity', '\x', NULL, 'happy', '{{1,2},{3,4}}', '{NULL}', NULL, '5874897-12-31',
         '-178000000 years', 'fe80::1/64', 1e-45, 32767, '     ', 'null', NULL, '(,)', 2147483647, 'é', 'a=>1,b=>2',
         NULL, B'0'),
        ('<null>', 0.000, '4713-01-01 00:00:00 BC', '"\u00e9"', 0.1::float8 + 0.2, '\x5a', NULL, NULL, NULL, NULL, NULL,
         NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
         NULL, NULL, NULL, NULL, NULL, NULL),
        (repeat('long ', 100000), 123456789012345678901234567890.123456789, now(), jsonb_build_object('x', repeat('y', 9999)),
         1e308, decode(repeat('ab', 200000), 'hex'), gen_random_uuid(), 'ok', (SELECT array_agg(i) FROM generate_series(1, 5000) AS i),
         '{x}', true, now(), '1 year', '1.2.3.4', 3.4e38, -32768, 'abcde', '1', now(), '[5,5]', 3, 'x', '', '<x>é</x>', B'1');
"#;

/// The formula of ARCHITECTURE, written once more and in another language.
async fn stored(session: &Direct) -> Vec<Digest> {
    let columns = "SELECT attname::text, typsend::regproc::text FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
                   WHERE attrelid = 'public.everything'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attname";
    let columns = session.query(columns, &[]).await.unwrap();
    assert_eq!(columns.len(), 26);
    let fields: Vec<String> = columns
        .iter()
        .map(|column| {
            let (name, send): (String, String) = (column.get(0), column.get(1));
            format!("coalesce(int4send(length({send}({name}))) || {send}({name}), '\\xffffffff')")
        })
        .collect();
    let sql = format!(
        "SELECT sha256($1 || int2send({TABLE}::int2) || int2send({}::int2) || {}) FROM public.everything",
        fields.len(),
        fields.join(" || ")
    );
    let rows = session.query(&sql, &[&SALT.0.as_slice()]).await.unwrap();
    let digest = |row: &[u8]| Digest(row.try_into().unwrap());
    rows.iter().map(|row| digest(row.get(0))).collect()
}

async fn on_the_wire(session: &Direct) -> Vec<Digest> {
    let hasher = RowHasher::new(&SALT, TABLE);
    let mut reader = CopyReader::new(26);
    let mut digests = Vec::new();
    // A table's own COPY leaves generated columns out.
    let sql = "COPY (SELECT * FROM public.everything) TO STDOUT BINARY";
    let mut copy = session.copy_out(sql).await.unwrap();
    while let Some(bytes) = copy.next().await.unwrap() {
        reader.push(&bytes);
        while let Some(tuple) = reader.next().unwrap() {
            digests.push(hasher.digest(tuple.fields()));
        }
    }
    assert_eq!(reader.finish(), Ok(digests.len() as u64));
    digests
}

#[tokio::test]
async fn wire_and_server_agree_on_every_type() {
    let server = Server::start();
    let session = server.open().await;
    session.batch(FIXTURE).await.unwrap();
    let (mut wire, mut stored_rows) = (on_the_wire(&session).await, stored(&session).await);
    assert_eq!(wire.len(), 6);
    assert_eq!(wire, stored_rows);
    assert_eq!(user_digest(&mut wire), user_digest(&mut stored_rows));
    let whole = "SELECT sha256(string_agg(d, ''::bytea ORDER BY d)) FROM unnest($1::bytea[]) AS d";
    let rows: Vec<&[u8]> = stored_rows
        .iter()
        .map(|digest| digest.0.as_slice())
        .collect();
    let answer = session.query(whole, &[&rows]).await.unwrap();
    assert_eq!(
        answer[0].get::<_, &[u8]>(0),
        user_digest(&mut wire).0.as_slice()
    );
}

#[tokio::test]
async fn one_flipped_thing_changes_the_digest() {
    let server = Server::start();
    let session = server.open().await;
    session.batch(FIXTURE).await.unwrap();
    let before = user_digest(&mut on_the_wire(&session).await);
    for change in [
        "a_text = NULL WHERE a_text = ''",
        "a_text = '' WHERE a_text = ' '",
        "b_numeric = 1.1 WHERE b_numeric = 1.10 AND a_text <> ' '",
        "c_timestamptz = c_timestamptz + interval '1 us' WHERE a_text = 'é€𝄞'",
        "d_jsonb = '{\"a\": [1, null]}' WHERE a_text = 'é€𝄞'",
        "e_float8 = 0.3 WHERE a_text = '<null>'",
        "e_float8 = 0 WHERE a_text = ''",
        "f_bytea = '\\x01ff' WHERE f_bytea = '\\x00ff'",
        "k_bool = false WHERE k_bool IS NULL",
    ] {
        session.batch("BEGIN").await.unwrap();
        let changed = format!("UPDATE public.everything SET {change}");
        assert!(
            session.execute(&changed, &[]).await.unwrap() > 0,
            "{change}"
        );
        let after = user_digest(&mut on_the_wire(&session).await);
        let stored_after = user_digest(&mut stored(&session).await);
        assert_eq!(after, stored_after, "{change}");
        assert_ne!(after, before, "{change}");
        session.batch("ROLLBACK").await.unwrap();
    }
}
