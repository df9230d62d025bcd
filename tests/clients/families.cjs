// node-redis against one family of commands: node families.cjs PORT PROTOCOL FAMILY
// Ends with status 0 when all went as it should, with a stack trace and status 1 when not.
'use strict';

const assert = require('node:assert/strict');
const { createClient } = require('@redis/client');

const [port, protocol, family] = process.argv.slice(2);
const DEADLINE_MS = 15_000;
const opened = [];

async function connect(options = {}) {
  const client = createClient({
    socket: { host: '127.0.0.1', port: Number(port), reconnectStrategy: false },
    RESP: Number(protocol),
    unstableResp3: true, // XREAD's replies in RESP3
    ...options,
  });
  client.on('error', () => {}); // the promises tell
  opened.push(client);
  await client.connect();
  return client;
}

async function until(condition) {
  const end = Date.now() + 10_000;
  for (;;) {
    const found = await condition();
    if (found) return found;
    assert.ok(Date.now() < end, `still not so: ${condition}`);
    await new Promise((done) => setTimeout(done, 5));
  }
}

const near = (value, wanted, error) => assert.ok(Math.abs(Number(value) - wanted) <= error, `${value} is not ${wanted}`);
const sorted = (values) => [...values].sort();
const plain = (value) => JSON.parse(JSON.stringify(value)); // without the prototypes of node-redis's objects
const fails = (promise, pattern) => assert.rejects(promise, (error) => pattern.test(error.message));

const families = {
  async strings(client) {
    assert.equal(await client.set('a', '1', { EX: 100, NX: true }), 'OK');
    assert.equal(await client.set('a', '2', { XX: true, GET: true }), '1');
    assert.equal(await client.mSet({ b: 'x', c: 'y' }), 'OK');
    assert.deepEqual(await client.mGet(['a', 'b', 'absent']), ['2', 'x', null]);
    assert.equal(Number(await client.mSetNX({ b: '1', d: '1' })), 0);
    assert.equal(await client.incrBy('a', 40), 42);
    assert.equal(Number(await client.incrByFloat('f', 1.5)), 1.5);
    assert.equal(await client.append('b', 'yz'), 3);
    assert.equal(await client.getRange('b', 1, 2), 'yz');
    assert.equal(await client.setRange('b', 5, '!'), 6);
    assert.equal(await client.getEx('c', { type: 'PX', value: 5000 }), 'y');
    assert.equal(await client.getDel('c'), 'y');
    assert.equal(await client.get('c'), null);
    await client.mSet({ one: 'ohmytext', two: 'mynewtext' });
    assert.equal(await client.lcs('one', 'two'), 'mytext');
  },

  async bitmaps(client) {
    assert.equal(await client.setBit('b', 7, 1), 0);
    assert.equal(await client.bitCount('b'), 1);
    assert.equal(await client.bitPos('b', 1), 7);
    assert.deepEqual(
      await client.bitField('f', [
        { operation: 'SET', encoding: 'u8', offset: '#1', value: 200 },
        { operation: 'INCRBY', encoding: 'u8', offset: '#1', increment: 100 },
        { operation: 'OVERFLOW', behavior: 'SAT' },
        { operation: 'INCRBY', encoding: 'u8', offset: '#1', increment: 255 },
      ]),
      [0, 44, 255],
    );
    assert.equal(await client.bitOp('NOT', 'n', 'b'), 1);
  },

  async lists(client) {
    assert.equal(await client.rPush('l', ['a', 'b', 'c', 'd', 'e']), 5);
    assert.equal(await client.lPush('l', 'z'), 6);
    assert.deepEqual(await client.lRange('l', 0, 2), ['z', 'a', 'b']);
    assert.equal(await client.lPos('l', 'c'), 3);
    assert.equal(await client.lInsert('l', 'BEFORE', 'a', 'y'), 7);
    assert.equal(await client.lSet('l', 0, 'Z'), 'OK');
    assert.equal(await client.lRem('l', 1, 'y'), 1);
    assert.equal(await client.lTrim('l', 0, 3), 'OK');
    assert.equal(await client.lPop('l'), 'Z');
    assert.deepEqual(await client.rPopCount('l', 2), ['c', 'b']);
    assert.equal(await client.lMove('l', 'm', 'LEFT', 'RIGHT'), 'a');
    assert.deepEqual(await client.lmPop(['l', 'm'], 'LEFT'), ['m', ['a']]);
  },

  async hashes(client) {
    assert.equal(await client.hSet('h', { a: '1', b: '2', c: '3' }), 3);
    assert.deepEqual(plain(await client.hGetAll('h')), { a: '1', b: '2', c: '3' });
    assert.deepEqual(await client.hmGet('h', ['a', 'x']), ['1', null]);
    assert.equal(await client.hIncrBy('h', 'a', 5), 6);
    assert.equal(Number(await client.hIncrByFloat('h', 'b', 0.5)), 2.5);
    assert.equal(Number(await client.hSetNX('h', 'a', '9')), 0);
    assert.deepEqual(sorted(await client.hKeys('h')), ['a', 'b', 'c']);
    assert.equal(await client.hDel('h', ['c', 'x']), 1);
    assert.equal(await client.hLen('h'), 2);
    const found = {};
    for await (const entries of client.hScanIterator('h')) {
      for (const { field, value } of entries) found[field] = value;
    }
    assert.deepEqual(found, { a: '6', b: '2.5' });
  },

  async hash_field_expiry(client) {
    await client.hSet('h', { a: '1', b: '2', c: '3' });
    assert.deepEqual(await client.hExpire('h', ['a', 'x'], 100), [1, -2]);
    assert.deepEqual(await client.hTTL('h', ['a', 'b', 'x']), [100, -1, -2]);
    assert.deepEqual(await client.hPersist('h', ['a']), [1]);
    assert.deepEqual(await client.hpExpireAt('h', ['a'], 4102444800000), [1]);
    assert.deepEqual(await client.hExpireTime('h', ['a']), [4102444800]);
    assert.deepEqual(await client.hGetDel('h', ['c']), ['3']);
    assert.equal(await client.hSetEx('h', { d: '4' }, { expiration: { type: 'EX', value: 100 } }), 1);
    assert.deepEqual(await client.hGetEx('h', ['d'], { expiration: { type: 'PERSIST' } }), ['4']);
  },

  async sets(client) {
    assert.equal(await client.sAdd('s', ['a', 'b', 'c']), 3);
    await client.sAdd('t', ['b', 'c', 'd']);
    assert.deepEqual(sorted(await client.sMembers('s')), ['a', 'b', 'c']);
    assert.deepEqual((await client.smIsMember('s', ['a', 'x'])).map(Number), [1, 0]);
    assert.deepEqual(sorted(await client.sInter(['s', 't'])), ['b', 'c']);
    assert.deepEqual(sorted(await client.sUnion(['s', 't'])), ['a', 'b', 'c', 'd']);
    assert.deepEqual(await client.sDiff(['s', 't']), ['a']);
    assert.equal(await client.sInterStore('i', ['s', 't']), 2);
    assert.equal(await client.sInterCard(['s', 't']), 2);
    assert.equal(Number(await client.sMove('s', 't', 'a')), 1);
    assert.ok(['b', 'c'].includes(await client.sPop('i')));
    assert.equal((await client.sRandMemberCount('t', -3)).length, 3);
    assert.equal(await client.sRem('t', 'a'), 1);
  },

  async sorted_sets(client) {
    const members = [{ value: 'a', score: 1 }, { value: 'b', score: 2.5 }, { value: 'c', score: 3 }];
    assert.equal(await client.zAdd('z', members), 3);
    assert.equal(await client.zAdd('z', { value: 'a', score: 5 }, { comparison: 'GT', CH: true }), 1);
    assert.deepEqual(plain(await client.zRangeWithScores('z', 0, -1)), [
      { value: 'b', score: 2.5 }, { value: 'c', score: 3 }, { value: 'a', score: 5 },
    ]);
    assert.deepEqual(await client.zRange('z', '(2.5', '+inf', { BY: 'SCORE', LIMIT: { offset: 0, count: 1 } }), ['c']);
    assert.equal(await client.zScore('z', 'b'), 2.5);
    assert.equal(await client.zRank('z', 'a'), 2);
    assert.deepEqual(await client.zmScore('z', ['a', 'x']), [5, null]);
    assert.equal(await client.zIncrBy('z', 10, 'b'), 12.5);
    assert.equal(await client.zCount('z', 3, 5), 2);
    await client.zAdd('y', [{ value: 'b', score: 1 }, { value: 'd', score: 2 }]);
    assert.equal(await client.zUnionStore('u', ['z', 'y'], { AGGREGATE: 'MAX' }), 4);
    assert.deepEqual(await client.zInter(['z', 'y']), ['b']);
    assert.deepEqual(await client.zDiff(['z', 'y']), ['c', 'a']);
    assert.deepEqual(plain(await client.zPopMin('u')), { value: 'd', score: 2 });
    assert.equal(await client.zRangeStore('r', 'u', 0, 0), 1);
    assert.equal(await client.zRemRangeByScore('u', 5, 5), 1);
    assert.deepEqual(plain(await client.zmPop('y', 'MIN')), { key: 'y', members: [{ value: 'b', score: 1 }] });
  },

  async hyperloglog(client) {
    const numbers = (from, to) => Array.from({ length: to - from }, (_, i) => String(from + i));
    assert.equal(Number(await client.pfAdd('a', numbers(0, 100))), 1);
    await client.pfAdd('b', numbers(50, 150));
    near(await client.pfCount('a'), 100, 3);
    near(await client.pfCount(['a', 'b']), 150, 5);
    assert.equal(await client.pfMerge('c', ['a', 'b']), 'OK');
    assert.equal(await client.pfCount('c'), await client.pfCount(['a', 'b']));
  },

  async geo(client) {
    const places = [
      { longitude: 13.361389, latitude: 38.115556, member: 'Palermo' },
      { longitude: 15.087269, latitude: 37.502669, member: 'Catania' },
    ];
    assert.equal(await client.geoAdd('g', places), 2);
    near(await client.geoDist('g', 'Palermo', 'Catania', 'km'), 166.2742, 1e-4);
    assert.deepEqual(await client.geoHash('g', 'Palermo'), ['sqc8b49rny0']);
    near((await client.geoPos('g', 'Palermo'))[0].longitude, 13.361389, 1e-5);
    const centre = { longitude: 15, latitude: 37 };
    const found = await client.geoSearchWith('g', centre, { radius: 200, unit: 'km' }, ['WITHDIST'], { SORT: 'ASC' });
    assert.deepEqual(found.map(({ member }) => member), ['Catania', 'Palermo']);
    near(found[0].distance, 56.4413, 1e-4);
    assert.equal(await client.geoSearchStore('n', 'g', 'Catania', { width: 10, height: 10, unit: 'km' }), 1);
  },

  async streams(client) {
    for (let n = 1; n <= 5; n++) assert.equal(await client.xAdd('x', `${n}-0`, { n: String(n) }), `${n}-0`);
    assert.equal(await client.xLen('x'), 5);
    assert.deepEqual((await client.xRange('x', '2', '3')).map(({ id }) => id), ['2-0', '3-0']);
    assert.equal((await client.xRevRange('x', '+', '-', { COUNT: 1 }))[0].id, '5-0');
    assert.equal(await client.xGroupCreate('x', 'g', '0'), 'OK');
    const read = await client.xReadGroup('g', 'one', { key: 'x', id: '>' }, { COUNT: 2 });
    assert.match(JSON.stringify(read), /1-0.*2-0/);
    assert.equal(await client.xAck('x', 'g', '1-0'), 1);
    assert.equal((await client.xPending('x', 'g')).pending, 1);
    assert.equal((await client.xPendingRange('x', 'g', '-', '+', 10))[0].id, '2-0');
    assert.deepEqual(await client.xClaimJustId('x', 'g', 'two', 0, '2-0'), ['2-0']);
    assert.equal((await client.xAutoClaim('x', 'g', 'one', 0, '0')).nextId, '0-0');
    assert.equal((await client.xInfoStream('x')).length, 5);
    assert.equal((await client.xInfoGroups('x'))[0].name, 'g');
    assert.deepEqual(sorted((await client.xInfoConsumers('x', 'g')).map(({ name }) => name)), ['one', 'two']);
    assert.equal(await client.xTrim('x', 'MAXLEN', 2), 3);
    assert.equal(await client.xDel('x', '4-0'), 1);
    assert.match(JSON.stringify(await client.xRead({ key: 'x', id: '4-0' })), /5-0/);
    const waiting = (await connect()).xRead({ key: 'x', id: '$' }, { BLOCK: 10_000 });
    await until(async () => /blocked_clients:1/.test(await client.info('clients')));
    await client.xAdd('x', '6-0', { n: '6' });
    assert.match(JSON.stringify(await waiting), /6-0/);
    assert.equal(Number(await client.xGroupDestroy('x', 'g')), 1);
  },

  async vector_sets(client) {
    const points = { a: [1, 0], b: [0.5, 0.5], c: [-1, 0] };
    for (const [name, point] of Object.entries(points)) {
      assert.ok(await client.vAdd('v', point, name, { SETATTR: { name } }));
    }
    assert.equal(await client.vCard('v'), 3);
    assert.equal(await client.vDim('v'), 2);
    assert.deepEqual(await client.vSim('v', [1, 0.1], { COUNT: 2 }), ['a', 'b']);
    assert.deepEqual(plain(await client.vSimWithScores('v', 'a', { COUNT: 1 })), { a: 1 });
    assert.deepEqual(await client.vSim('v', 'a', { FILTER: '.name in ["b", "c"]' }), ['b', 'c']);
    assert.deepEqual(await client.vEmb('v', 'c'), [-1, 0]);
    assert.equal((await client.vEmbRaw('v', 'c')).quantization, 'int8');
    assert.deepEqual(plain(await client.vGetAttr('v', 'b')), { name: 'b' });
    assert.ok(await client.vSetAttr('v', 'b', { name: 'B' }));
    assert.equal((await client.vInfo('v')).size, 3);
    assert.equal((await client.vLinks('v', 'a'))[0].length, 2);
    assert.ok(['a', 'b', 'c'].includes(await client.vRandMember('v')));
    assert.ok(await client.vRem('v', 'c'));
  },

  async keys(client) {
    await client.mSet({ a: '1', b: '2', ab: '3' });
    assert.deepEqual(sorted(await client.keys('a*')), ['a', 'ab']);
    const found = [];
    for await (const keys of client.scanIterator({ MATCH: '*b', COUNT: 1 })) found.push(...keys);
    assert.deepEqual(sorted(found), ['ab', 'b']);
    assert.equal(await client.exists(['a', 'x']), 1);
    assert.equal(await client.type('a'), 'string');
    assert.equal(Number(await client.expire('a', 100, 'NX')), 1);
    assert.equal(Number(await client.expireAt('b', 4102444800)), 1);
    assert.equal(await client.expireTime('b'), 4102444800);
    assert.equal(Number(await client.persist('a')), 1);
    assert.equal(await client.rename('a', 'c'), 'OK');
    assert.equal(Number(await client.copy('c', 'd')), 1);
    assert.equal(Number(await client.move('d', 1)), 1);
    assert.equal(await client.unlink(['c', 'ab']), 2);
    assert.equal(await client.randomKey(), 'b');
    assert.equal(await client.objectEncoding('b'), 'int');
    await client.rPush('l', ['3', '1', '2']);
    assert.deepEqual(await client.sort('l', { DIRECTION: 'DESC' }), ['3', '2', '1']);
  },

  async serialisation() {
    const { RESP_TYPES } = require('@redis/client');
    const client = (await connect()).withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
    await client.zAdd('z', { value: 'a', score: 1 });
    const payload = await client.dump('z');
    assert.equal(String(await client.restore('copy', 0, payload)), 'OK');
    assert.equal(await client.zScore('copy', 'a'), 1);
    await fails(client.restore('copy', 0, payload), /BUSYKEY/);
  },

  async transactions(client) {
    const other = await connect();
    assert.deepEqual(await client.multi().set('a', '1').incr('a').get('a').exec(), ['OK', 2, '2']);
    await client.watch('a');
    await other.set('a', '10');
    await assert.rejects(client.multi().set('a', '3').exec(), { name: 'Error', message: /watched keys/ });
    assert.equal(await client.get('a'), '10');
    await fails(client.multi().lPush('a', 'x').exec(), /1 commands failed|WRONGTYPE/);
  },

  async blocking(client) {
    const other = await connect();
    const waiting = client.blPop(['l', 'm'], 10);
    await until(async () => /blocked_clients:1/.test(await other.info('clients')));
    await other.rPush('m', 'x');
    assert.deepEqual(plain(await waiting), { key: 'm', element: 'x' });
    assert.equal(await client.brPop('l', 0.01), null);
    await other.zAdd('z', { value: 'a', score: 1 });
    assert.deepEqual(plain(await client.bzPopMin('z', 1)), { key: 'z', value: 'a', score: 1 });
    await other.rPush('l', 'y');
    assert.equal(await client.blMove('l', 'n', 'LEFT', 'RIGHT', 1), 'y');
  },

  async pubsub(client) {
    const listener = await connect();
    const heard = [];
    await listener.subscribe('news', (message, channel) => heard.push([channel, message]));
    await listener.pSubscribe('n*s', (message, channel) => heard.push([`p:${channel}`, message]));
    await listener.sSubscribe('shard', (message, channel) => heard.push([`s:${channel}`, message]));
    assert.equal(await client.publish('news', 'hello'), 2);
    assert.equal(await client.sPublish('shard', 'there'), 1);
    await until(() => heard.length === 3);
    assert.deepEqual(sorted(heard.map(String)), ['news,hello', 'p:news,hello', 's:shard,there']);
    assert.deepEqual(await client.pubSubChannels(), ['news']);
    assert.equal(Number(await client.pubSubNumPat()), 1);
    assert.deepEqual(plain(await client.pubSubNumSub(['news'])), { news: 1 });
    await listener.unsubscribe('news');
    assert.equal(await client.publish('news', 'again'), 1);
  },

  async notifications(client) {
    const listener = await connect();
    await client.configSet('notify-keyspace-events', 'KEA');
    try {
      const heard = [];
      await listener.pSubscribe('__keyevent@0__:*', (message, channel) => heard.push([channel, message]));
      await client.set('k', '1');
      await client.del('k');
      await until(() => heard.length === 2);
      assert.deepEqual(heard, [['__keyevent@0__:set', 'k'], ['__keyevent@0__:del', 'k']]);
    } finally {
      await client.configSet('notify-keyspace-events', '');
    }
  },

  async scripts(client) {
    const echo = { keys: ['k'], arguments: ['v'] };
    assert.deepEqual(await client.eval('return {KEYS[1], ARGV[1], 3}', echo), ['k', 'v', 3]);
    const sha = await client.scriptLoad("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    assert.equal(await client.evalSha(sha, { keys: ['n'], arguments: ['5'] }), 5);
    assert.deepEqual((await client.scriptExists([sha])).map(Number), [1]);
    assert.equal(await client.evalRo("return redis.call('GET', KEYS[1])", { keys: ['n'], arguments: [] }), '5');
    await fails(client.eval("return redis.error_reply('ERR wrong')"), /wrong/);
    assert.equal(await client.scriptFlush(), 'OK');
    await fails(client.evalSha(sha, { keys: ['n'], arguments: ['5'] }), /NOSCRIPT/);
  },

  async functions(client) {
    const code = "#!lua name=lib\nredis.register_function('twice', function(keys, args) return args[1] * 2 end)";
    assert.equal(await client.functionLoad(code, { REPLACE: true }), 'lib');
    assert.equal(await client.fCall('twice', { keys: [], arguments: ['21'] }), 42);
    assert.equal((await client.functionList())[0].library_name, 'lib');
    assert.equal(await client.functionDelete('lib'), 'OK');
  },

  async client_side_caching(client) {
    if (protocol === '3') { // node-redis's own cache
      const cached = await connect({ clientSideCache: { ttl: 0, maxEntries: 100, evictPolicy: 'LRU' } });
      await client.set('k', 'one');
      assert.deepEqual([await cached.get('k'), await cached.get('k')], ['one', 'one']);
      await client.set('k', 'two');
      await until(async () => (await cached.get('k')) === 'two');
      return;
    }
    const listener = await connect();
    const reader = await connect();
    const number = await listener.clientId();
    const heard = [];
    await listener.subscribe('__redis__:invalidate', (message) => heard.push(message));
    assert.equal(await reader.sendCommand(['CLIENT', 'TRACKING', 'ON', 'REDIRECT', String(number)]), 'OK');
    await client.set('k', 'one');
    assert.equal(await reader.get('k'), 'one');
    await client.set('k', 'two');
    await until(() => heard.length === 1);
    assert.deepEqual(heard.flat(), ['k']);
  },

  async acl(client) {
    assert.equal(await client.aclWhoAmI(), 'default');
    assert.equal(await client.aclSetUser('alice', ['on', '>secret', '~a:*', '+get', '+set']), 'OK');
    try {
      const alice = await connect({ username: 'alice', password: 'secret', disableClientInfo: true });
      assert.equal(await alice.set('a:1', 'x'), 'OK');
      await fails(alice.set('b:1', 'x'), /NOPERM/);
      await fails(alice.del('a:1'), /NOPERM/);
      await assert.rejects(connect({ username: 'alice', password: 'wrong' }), /WRONGPASS/);
      assert.deepEqual((await client.aclGetUser('alice')).flags.includes('on'), true);
      assert.ok((await client.aclCat()).includes('string'));
      assert.ok((await client.aclLog()).length > 0);
    } finally {
      assert.equal(await client.aclDelUser('alice'), 1);
    }
  },

  async connection_and_server(client) {
    assert.equal(await client.ping(), 'PONG');
    assert.equal(await client.echo('x'), 'x');
    assert.equal(await client.clientSetName('tester'), 'OK');
    assert.equal(await client.clientGetName(), 'tester');
    assert.ok((await client.clientList()).some(({ name }) => name === 'tester'));
    assert.equal((await client.clientInfo()).id, await client.clientId());
    assert.ok((await client.commandCount()) > 200);
    assert.deepEqual(await client.commandGetKeys(['MSET', 'a', '1', 'b', '2']), ['a', 'b']);
    assert.deepEqual(plain(await client.configGet('maxclients')), { maxclients: '10000' });
    assert.match(await client.info('server'), /redis_version/);
    assert.equal(await client.memoryUsage('absent'), null);
    assert.equal(await client.dbSize(), 0);
    assert.equal(await client.sendCommand(['SLOWLOG', 'RESET']), 'OK');
    assert.equal(await client.wait(0, 10), 0);
    assert.equal(await client.swapDb(0, 1), 'OK');
    await client.select(1);
    assert.equal((await client.time()).length ?? 2, 2);
    await fails(client.sendCommand(['DPING']), /unknown command/);
  },
};

async function main() {
  const client = await connect();
  await client.flushAll();
  await families[family](client);
}

const timer = setTimeout(() => {
  console.error(`${family}: no end after ${DEADLINE_MS} ms`);
  process.exit(1);
}, DEADLINE_MS);

main().then(
  () => {
    clearTimeout(timer);
    opened.forEach((client) => client.isOpen && client.destroy());
  },
  (error) => {
    console.error(error.stack);
    process.exit(1);
  },
);
