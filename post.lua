wrk.method="POST"
wrk.body='{"email":"u1@example.com","phoneNumber":"+15550001"}'
wrk.headers["Content-Type"]="application/json"
