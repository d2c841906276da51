-- `ngx.ssl`: certificates and keys as values for a socket's `setclientcert` and `settrustedstore`.
-- Such a value is a table with its PEM; the host parses it when it is used.
local encode, decode = ngx.encode_base64, ngx.decode_base64
local byte, concat, find, gmatch, gsub, sub = string.byte, table.concat, string.find, string.gmatch, string.gsub, string.sub
local type, setmetatable = type, setmetatable

local Ssl = { _VERSION = "0.1.25" }
local certificate = { __name = "certificate" }
local key = { __name = "private key" }

-- The DER of every block whose label ends so.
local function blocks(pem, label)
  local found = {}
  for name, body in gmatch(pem, "%-%-%-%-%-BEGIN ([%u ]+)%-%-%-%-%-%s*(.-)%s*%-%-%-%-%-END [%u ]+%-%-%-%-%-") do
    if sub(name, -#label) == label then
      if find(name, "ENCRYPTED", 1, true) then return nil, "encrypted keys are not supported" end
      local der = decode((gsub(body, "%s", "")))
      -- DER of both is a sequence.
      if not der or byte(der) ~= 0x30 then return nil, "bad base64 or DER" end
      found[#found + 1] = { name, der }
    end
  end
  if not found[1] then return nil, "no " .. label .. " in it" end
  return found
end

local function pem_of(name, der)
  local lines = gsub(encode(der), ("."):rep(64), "%0\n")
  return concat({ "-----BEGIN ", name, "-----\n", lines, "\n-----END ", name, "-----\n" })
end

local function parse(text, label, failure, meta)
  if type(text) ~= "string" then return nil, failure .. ": string expected, got " .. type(text) end
  local found, err = blocks(text, label)
  if not found then return nil, failure .. ": " .. err end
  local parts = {}
  for i, block in ipairs(found) do parts[i] = pem_of(block[1], block[2]) end
  return setmetatable({ pem = concat(parts) }, meta)
end

function Ssl.parse_pem_cert(pem)
  return parse(pem, "CERTIFICATE", "PEM_read_bio_X509_AUX() failed", certificate)
end

function Ssl.parse_pem_priv_key(pem)
  return parse(pem, "PRIVATE KEY", "PEM_read_bio_PrivateKey() failed", key)
end

function Ssl.cert_pem_to_der(pem)
  local found, err = blocks(pem, "CERTIFICATE")
  if not found then return nil, "PEM_read_bio_X509_AUX() failed: " .. err end
  local parts = {}
  for i, block in ipairs(found) do parts[i] = block[2] end
  return concat(parts)
end

function Ssl.priv_key_pem_to_der(pem)
  local found, err = blocks(pem, "PRIVATE KEY")
  if not found then return nil, "PEM_read_bio_PrivateKey() failed: " .. err end
  return found[1][2]
end

-- The length of the DER element at `at`, its head included.
local function element(der, at)
  local tag, length = byte(der, at, at + 1)
  if tag ~= 0x30 or not length then return nil end
  if length < 0x80 then return length + 2 end
  local size, count = 0, length - 0x80
  if count < 1 or count > 4 then return nil end
  for i = 2, count + 1 do
    local digit = byte(der, at + i)
    if not digit then return nil end
    size = size * 256 + digit
  end
  return size + 2 + count
end

function Ssl.parse_der_cert(der)
  local parts, at = {}, 1
  while at <= #der do
    local size = element(der, at)
    if not size or at + size - 1 > #der then return nil, "d2i_X509_bio() failed" end
    parts[#parts + 1] = pem_of("CERTIFICATE", sub(der, at, at + size - 1))
    at = at + size
  end
  if not parts[1] then return nil, "d2i_X509_bio() failed" end
  return setmetatable({ pem = concat(parts) }, certificate)
end

function Ssl.parse_der_priv_key(der)
  if element(der, 1) ~= #der then return nil, "d2i_PrivateKey_bio() failed" end
  -- A second element's tag tells the three forms apart: PKCS#8 has an algorithm there.
  local version = byte(der, 2) < 0x80 and 3 or 3 + byte(der, 2) - 0x80
  local second = byte(der, version + 3)
  local name = second == 0x30 and "PRIVATE KEY" or second == 0x04 and "EC PRIVATE KEY" or "RSA PRIVATE KEY"
  return setmetatable({ pem = pem_of(name, der) }, key)
end

return Ssl
