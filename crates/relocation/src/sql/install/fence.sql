-- The fence of {{table}}: lets a write through only where the home of the row's user is.
CREATE OR REPLACE FUNCTION regionwise.fence_{{number}}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp{{row_security}} AS $fence$
#variable_conflict use_column
DECLARE
  v_old text; v_new text;                      -- the users of the row as it was and as it will be
  v_held_old text; v_held_new text;            -- whose home locks are had
  v_last text;
  v_committed boolean; v_above int;
  v_state text; v_epoch bigint; v_watch boolean;
  v_old_state text; v_old_epoch bigint; v_old_watch boolean;
BEGIN
  {{find}}
  -- Checked and locked earlier in this transaction: under the lock nothing can have changed, and it was had before the
  -- look-up.
  IF v_old = v_new AND substr(current_setting('regionwise.last', true), 5) = '=' || v_new THEN
    {{pass}}
  END IF;
  -- The usual case: one user, whose lock is free. Then in one statement, so in one new snapshot, the route and the user
  -- once more; and the memory of it. (Every expression here costs, because each transaction prepares it anew.)
  IF v_old = v_new AND current_setting('transaction_isolation') = 'read committed'
     AND coalesce(left(current_setting('regionwise.last', true), 4), '') < '1256' COLLATE "C"
     AND pg_try_advisory_xact_lock_shared({{class}}, hashtext(v_new)) THEN
    PERFORM set_config('regionwise.last', (coalesce(nullif(left(current_setting('regionwise.last', true), 4), ''), '1000')::int + 1)::text || '=' || v_new, true)
      FROM regionwise.route r WHERE r.usr = v_new AND r.state IN ('home', 'active') AND NOT r.watch{{still}};
    IF FOUND THEN
      {{pass}}
    END IF;
    v_above := hashtext(v_new);
  END IF;

  v_committed := current_setting('transaction_isolation') = 'read committed';
  v_last := coalesce(current_setting('regionwise.last', true), '');
  LOOP                                         -- users; then their locks; then the users again, until they are the ones locked
    IF v_old IS NULL OR v_new IS NULL THEN
      -- A reference that leads to no row. With enforced foreign keys an existing row comes to this in one way only: this
      -- very transaction removed or renamed the parent, and was checked and took the lock when it did.
      IF TG_OP = 'DELETE' THEN
        RETURN OLD;
      {{unset}}
      ELSIF TG_NARGS > 0 THEN                  -- at COMMIT: the row is gone, or the foreign key's own check refuses it
        IF current_setting('session_replication_role') <> 'replica' THEN RETURN NULL; END IF;
        RAISE EXCEPTION 'no user is found for a row of %', TG_TABLE_NAME USING ERRCODE = '23503';
      {{deferrable}}
      ELSIF TG_OP = 'UPDATE' AND pg_trigger_depth() > 1 THEN
        v_old := coalesce(v_old, v_new); v_new := coalesce(v_new, v_old);   -- ON UPDATE CASCADE, SET NULL, SET DEFAULT
        IF v_old IS NULL THEN RETURN NEW; END IF;
      ELSIF NOT v_committed THEN
        RAISE EXCEPTION 'the user of a row of % is not visible in this snapshot', TG_TABLE_NAME USING ERRCODE = '40001';
      ELSE
        RAISE EXCEPTION 'no user is found for a row of %', TG_TABLE_NAME USING ERRCODE = '23503';
      END IF;
    END IF;
    EXIT WHEN v_old = v_held_old AND v_new = v_held_new;
    -- In the order of the locks, and exclusive at once: a lock that is made stronger later is a deadlock.
    IF v_old = v_new THEN
      v_above := regionwise.hold(v_new, false, v_above);
    ELSIF hashtext(v_old) <= hashtext(v_new) THEN
      v_above := regionwise.hold(v_old, true, v_above); v_above := regionwise.hold(v_new, true, v_above);
    ELSE
      v_above := regionwise.hold(v_new, true, v_above); v_above := regionwise.hold(v_old, true, v_above);
    END IF;
    v_held_old := v_old; v_held_new := v_new;
    {{again}}
  END LOOP;

  {{root_key}}
  IF v_old = v_new THEN
    IF v_committed THEN
      SELECT r.state, r.epoch, r.watch INTO v_state, v_epoch, v_watch FROM regionwise.route r WHERE r.usr = v_new;
    ELSE                                       -- an older snapshot gets 40001 if the route has changed since
      SELECT r.state, r.epoch, r.watch INTO v_state, v_epoch, v_watch FROM regionwise.route r WHERE r.usr = v_new FOR SHARE;
    END IF;
    {{sign_up}}
    {{invisible}}
    IF v_state IS NULL OR v_state NOT IN ('home', 'active') THEN
      PERFORM regionwise.refuse(v_state, v_epoch, format('state %s, epoch %s', coalesce(v_state, 'none'), coalesce(v_epoch, -1)));
    END IF;
    IF v_watch THEN
      {{note}}
    ELSE
      PERFORM set_config('regionwise.last', least(coalesce(nullif(left(v_last, 4), ''), '1000')::int + 1, 1257)::text || '=' || v_new, true);
    END IF;
    {{pass}}
  END IF;

  -- A change of owner. The number grows so that whoever read the old owner in an older snapshot gets 40001.
  IF hashtext(v_old) <= hashtext(v_new) THEN
    UPDATE regionwise.route r SET rev = r.rev + 1 WHERE r.usr = v_old RETURNING r.state, r.epoch, r.watch INTO v_old_state, v_old_epoch, v_old_watch;
    UPDATE regionwise.route r SET rev = r.rev + 1 WHERE r.usr = v_new RETURNING r.state, r.epoch, r.watch INTO v_state, v_epoch, v_watch;
  ELSE
    UPDATE regionwise.route r SET rev = r.rev + 1 WHERE r.usr = v_new RETURNING r.state, r.epoch, r.watch INTO v_state, v_epoch, v_watch;
    UPDATE regionwise.route r SET rev = r.rev + 1 WHERE r.usr = v_old RETURNING r.state, r.epoch, r.watch INTO v_old_state, v_old_epoch, v_old_watch;
  END IF;
  IF v_old_state IN ('home', 'active') AND v_state IN ('home', 'active') THEN
    IF v_old_watch OR v_watch THEN
      {{note}}
    END IF;
    RETURN NEW;
  END IF;
  IF v_old_state IN ('home', 'active') OR v_state IN ('home', 'active') THEN
    PERFORM nextval('regionwise.hits');
    RAISE EXCEPTION 'a row of % cannot pass to a user whose home is elsewhere', TG_TABLE_NAME
      USING ERRCODE = 'MV002', DETAIL = greatest(v_old_epoch, v_epoch, -1);
  END IF;
  PERFORM regionwise.refuse(v_old_state, v_old_epoch, format('state %s, epoch %s', coalesce(v_old_state, 'none'), coalesce(v_old_epoch, -1)));
END $fence$;
