#!/bin/bash
# Java's SunPKCS11 finds the keys of the node with their certificates, soft and in the TPM: keytool lists them, jarsigner
# signs with them; another user's Java has none of them.
# bound: 180
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/programs.sh"
in_node --backend tpm2
front_ends
make_ca ca
cat >java.cfg <<CFG
name = csm
library = $p11_module
slotListIndex = 0
CFG
# java UID PROGRAM...: with the token as its store; there is no PIN, and any is taken.
java_as() {
    local uid=$1 program=$2
    shift 2
    as_uid "$uid" timeout 60 "$program" -J-Xshare:auto -J-XX:TieredStopAtLevel=1 -J-XX:-UsePerfData -keystore NONE \
        -storetype PKCS11 -addprovider SunPKCS11 -providerArg "$work/java.cfg" -storepass none "$@"
}
keys=()
for backend in soft tpm2; do
    for alg in p256 rsa2048; do
        keys+=("$alg-$backend")
        node_key_with_certificate $uid_a $alg-$backend ca dns:signer --backend $backend --alg $alg
    done
done

step "keytool lists keys with their certificates"
ok java_as $uid_a keytool -list
for key in "${keys[@]}"; do
    grep -qE "^$key, PrivateKeyEntry" out || fail "no $key: $(cat out)"
    fingerprint=$(openssl x509 -in "$key.crt" -noout -fingerprint -sha256 | cut -d= -f2)
    grep -qF "$fingerprint" out || fail "not the certificate of $key: $(cat out)"
done
java_as $uid_b keytool -list >listed 2>&1 || true
! grep -q PrivateKeyEntry listed || fail "another user lists: $(cat listed)"

step "jarsigner signs, and verifies"
keytool -J-XX:TieredStopAtLevel=1 -J-XX:-UsePerfData -importcert -noprompt -alias ca -file ca.pem -keystore trust.p12 \
    -storepass public >/dev/null 2>&1
echo "pay 10 to bob" >order
jar -J-XX:-UsePerfData cf plain.jar order
chmod 0644 plain.jar
verified() {
    timeout 60 jarsigner -J-XX:TieredStopAtLevel=1 -J-XX:-UsePerfData -verify -verbose -certs -keystore trust.p12 \
        -storepass public "$1"
}
# One jar, with a signature of each key.
signatures=0
cp plain.jar signed.jar
chown $uid_a signed.jar
for key in "${keys[@]}"; do
    signatures=$((signatures + 1))
    ok java_as $uid_a jarsigner -sigfile "KEY$signatures" "$work/signed.jar" "$key"
done
ok verified signed.jar
grep -q '^jar verified' out || fail "not verified: $(cat out)"
for key in "${keys[@]}"; do
    grep -qF "Signed by \"CN=$key\"" out || fail "no signature of $key: $(cat out)"
done
cp plain.jar theirs.jar
chown $uid_b theirs.jar
refused java_as $uid_b jarsigner "$work/theirs.jar" "${keys[0]}"
ok verified plain.jar
grep -q '^jar is unsigned' out || fail "an unsigned jar: $(cat out)"
echo "pay 1000 to bob" >order
jar -J-XX:-UsePerfData uf signed.jar order
refused verified signed.jar

step "Java's KeyPairGenerator has keys for its session, which csmd keeps nowhere"
cat >Pairs.java <<'JAVA'
import java.security.*;
import java.security.spec.*;
public class Pairs {
    public static void main(String[] args) throws Exception {
        Provider p = Security.getProvider("SunPKCS11").configure(args[0]);
        byte[] order = "pay 10 to bob".getBytes();
        for (String alg : new String[] {"EC", "RSA"}) {
            KeyPairGenerator g = KeyPairGenerator.getInstance(alg, p);
            if (alg.equals("EC")) g.initialize(new ECGenParameterSpec("secp256r1"));
            else g.initialize(2048);
            KeyPair pair = g.generateKeyPair();
            String how = alg.equals("EC") ? "SHA256withECDSA" : "SHA256withRSA";
            Signature s = Signature.getInstance(how, p);
            s.initSign(pair.getPrivate());
            s.update(order);
            byte[] sig = s.sign();
            /* another provider's opinion */
            KeyFactory f = KeyFactory.getInstance(alg, alg.equals("EC") ? "SunEC" : "SunRsaSign");
            Signature v = Signature.getInstance(how, alg.equals("EC") ? "SunEC" : "SunRsaSign");
            v.initVerify(f.generatePublic(new X509EncodedKeySpec(pair.getPublic().getEncoded())));
            v.update(order);
            System.out.println(alg + " " + v.verify(sig) + " " + (pair.getPrivate().getEncoded() == null));
        }
    }
}
JAVA
as_uid $uid_a csm key list --json >before
ok as_uid $uid_a timeout 60 java -XX:TieredStopAtLevel=1 -XX:-UsePerfData "$work/Pairs.java" "$work/java.cfg"
expect_equal "pairs" "$(cat out)" "EC true true
RSA true true"
as_uid $uid_a csm key list --json >after
expect_same "the keys in csmd" before after
